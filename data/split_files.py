"""Finds the files of a split."""

from __future__ import annotations

import os
from pathlib import Path

from profiles.errors import UserError


def split_files(root: Path, phase: str, split: str) -> list[Path]:
    """Return the files of a split, found as in ``open_shards``. Raise ``UserError`` with advice if there are none."""
    folder = root / phase / split
    # Not Path.is_dir, which raises where a folder above may not be searched.
    if os.path.isdir(folder):
        files = bin_files(folder)
    elif os.path.isdir(root / phase):
        files = bin_files(root / phase, prefix=f"{phase}-{split}-")
    else:
        files = []
    if files:
        return files
    from data.split_advice import missing_split  # imports this module

    raise UserError(missing_split(root, phase, split))


def files_not_read(root: Path, phase: str, split: str) -> list[Path]:
    """Return the .bin files that a user may take for a part of the split: deeper in its folder, or beside it."""
    folder = root / phase / split
    if not os.path.isdir(folder):
        return []
    deeper = [path for below in folders_below(folder)[1:] if os.access(below, os.R_OK) for path in bin_files(below)]
    return [*deeper, *bin_files(root / phase, prefix=f"{phase}-{split}-")]


def bin_files(folder: Path, prefix: str = "") -> list[Path]:
    """Return the ``.bin`` files of a folder, ordered by name, without hidden ones (macOS writes ``._x.bin``)."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed ({error.strerror}): check the path and its permissions") from error
    return [folder / name for name in names if name.startswith(prefix) and name.endswith(".bin") and name[0] != "."]


def folders_below(path: Path) -> list[Path]:
    """Return a directory and all directories below it that are not hidden."""
    found = []
    for folder, subfolders, _ in os.walk(path):
        subfolders[:] = [name for name in subfolders if name[0] != "."]
        found.append(Path(folder))
    return sorted(found)
