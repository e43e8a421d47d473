"""Says why a split has no files, what lies there instead, and which command or setting helps.

Each command works when it is pasted.
"""

from __future__ import annotations

import os
import shlex
import tomllib
from collections import Counter
from pathlib import Path

from data.shards import DATASET_JSON
from data.split_files import SUFFIXES, files_in_folder_of, folders_below, listed, split_of_name, token_files
from profiles.errors import UserError

_NAMED = 10  # phases in a line
_NOT_READ = (".bin.gz", ".bin.zst", ".parquet", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".arrow", ".npz", ".txt")


def missing_split(root: Path, phase: str, split: str) -> str:
    """Return one line: what is missing, what lies there instead, and the command or setting that helps."""
    root = Path(os.path.abspath(root))
    folder = root / phase / split
    if os.path.isfile(root):
        return f"data.root: {root} is a file: name the folder of the phases, in which a split is PHASE/train/*.bin"
    for place in (root, root / phase, root / phase / "train", folder):
        if problem := _unreadable(place):
            return problem
    missing = _what_is_missing(root, phase, split)
    for remedy in (
        _phases_below(root / phase, split),
        _nested(root / phase, split),
        _root_is_a_phase(root),
        _no_validation(root / phase) if split == "val" else _named_otherwise(root / phase),
        _other_phases(root, split),
        *(_other_formats(place) for place in (folder, root / phase, root)),
    ):
        if remedy:
            return f"{missing}{remedy}"
    pack = shlex.join(["mla-tui", "data", "pack", "TEXT", "--out", str(root), "--phase", phase])
    demo = shlex.join(["mla-tui", "data", "demo", "--out", str(root), "--phase", phase])
    return f"{missing}: pack text with {pack}, or build a small corpus with {demo}"


def _unreadable(folder: Path) -> str:
    """Return why an existing folder cannot be listed, or an empty string."""
    try:
        os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        return f"{folder}: cannot be listed ({error.strerror}): check the path and its permissions"
    return ""


def _what_is_missing(root: Path, phase: str, split: str) -> str:
    if not os.path.isdir(root):
        return f"data.root: {root} is not a directory"
    if not os.path.isdir(root / phase):
        there = [name for name in _names(root, "") if _has(root / name, "train") or _has(root / name, "val")]
        phases = f" (its phases: {', '.join(there[:_NAMED])}{', …' * (len(there) > _NAMED)})" if there else ""
        return f"data.phase: {root} has no {phase!r}{phases}"
    if os.path.isdir(root / phase / split):
        return f"{root / phase / split}: holds no token file"
    return f"{root / phase}: has no {split!r} split"


def _names(folder: Path, suffix: str) -> list[str]:
    """Return the names in ``folder``, if it exists, that end with ``suffix``: sorted, without hidden ones."""
    try:
        return [name for name in listed(folder) if name.endswith(suffix) and name[0] != "."]
    except UserError:
        return []


def _has(phase: Path, split: str) -> bool:
    """Whether a folder has token files for a split; those that name none count as training data."""
    try:
        loose = [split_of_name(file.name, phase.name) for file in token_files(phase)]
        return bool(files_in_folder_of(phase, split) or split in loose or (split == "train" and "" in loose))
    except UserError:
        return False


def _phases_below(folder: Path, split: str) -> str:
    """Advice where phases lie in what should be one. Linked into one, their ids would be mixed."""
    names = [name for name in _names(folder, "") if os.path.lexists(folder / name / DATASET_JSON)]
    found = [name for name in names if _has(folder / name, split)] or names
    if not found or _has(folder, "train" if split == "val" else split):
        return ""
    are = (
        f"its folder {found[0]} is a phase"
        if len(found) == 1
        else f"its folders {', '.join(found[:_NAMED])} are phases"
    )
    return f", but {are}; use -s {_setting('data.root', folder)} -s {_setting('data.phase', found[0])}"


def _nested(phase: Path, split: str) -> str:
    """Advice where the token files of a split lie one folder deeper; those of two folders may have the same name."""
    place = phase / split if os.path.isdir(phase / split) else phase
    if not os.path.isdir(place) or _has(phase, "train" if split == "val" else split):
        return ""
    count = sum(len(_names(folder, suffix)) for folder in folders_below(place)[1:] for suffix in SUFFIXES)
    if not count:
        return ""
    return f", but {count} one folder deeper; link them with: {_import(phase)}"


def _import(phase: Path, option: str = "") -> str:
    name = f"{phase.name}-linked"
    return f"mla-tui data import {_quoted(phase)} --out {_quoted(phase.parent)} --phase {_quoted(name)}{option}"


def _root_is_a_phase(root: Path) -> str:
    if not os.path.isdir(root) or not _has(root, "train"):
        return ""
    return f", but a split itself; use -s {_setting('data.root', root.parent)} -s {_setting('data.phase', root.name)}"


def _other_phases(root: Path, split: str) -> str:
    phases = [name for name in _names(root, "") if os.path.isdir(root / name) and _has(root / name, split)]
    return f"; use -s {_setting('data.phase', phases[0])}" if phases else ""


def _no_validation(phase: Path) -> str:
    """Advice for a phase with training data only."""
    if not os.path.isdir(phase) or not _has(phase, "train"):
        return ""
    advice = "; train without validation with -s val_every=0"
    files = files_in_folder_of(phase, "train") or token_files(phase)
    if len(files) < 2:
        return advice
    tested = [file for file in token_files(phase) if split_of_name(file.name) == "test"]
    tested = files_in_folder_of(phase, "test") or tested
    aside = (tested or files)[-1].relative_to(phase)
    return f"{advice}, or set a file aside for it with: {_import(phase, f' --val {_quoted(aside)}')}"


def _named_otherwise(phase: Path) -> str:
    """Advice where the names of all files of a phase say that they are for something else than training."""
    names = [name for name in _names(phase, "") if name.endswith(SUFFIXES)]
    if not names:
        return ""
    return f", but {names[0]} for {split_of_name(names[0], phase.name)}; put what to train on into {phase}/train"


def _other_formats(folder: Path) -> str:
    """Advice where a folder holds files that are no token files."""
    counts = Counter({suffix: len(_names(folder, suffix)) for suffix in _NOT_READ})
    suffix, count = counts.most_common(1)[0]
    if not count:
        return ""
    return f", but {_counted(count, suffix)} in {folder}, which mla-tui does not read; pack the text into token ids"


def _counted(count: int, suffix: str) -> str:
    return f"{count} {suffix} file{'s' if count > 1 else ''}"


def _setting(key: str, value: Path | str) -> str:
    """Return a shell word for ``-s``. A name that TOML reads as another type, such as 2024, is quoted."""
    text = str(value)
    try:
        tomllib.loads(f"value = {text}")
    except ValueError:
        return _quoted(f"{key}={text}")
    return _quoted(f'{key}="{text}"')


def _quoted(path: Path | str) -> str:
    return shlex.quote(str(path))
