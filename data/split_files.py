"""Finds the files of a split in the folder of a phase, as this and other programs lay them out."""

from __future__ import annotations

import os
import re
from pathlib import Path

from profiles.errors import UserError

SUFFIXES = (".bin", ".npy", ".ds")
# Words in the names of files and folders. What is for a test is no validation data, but not to be trained on either.
_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "eval"), "test"),
}


def split_files(root: Path, phase: str, split: str) -> list[Path]:
    """Return the token files of a split, ordered by name. Raise ``UserError`` with advice if there are none.

    They are those in the folder ``<root>/<phase>/<split>``, or in one whose name says the same, such as "validation".
    Without such a folder they are the files in ``<root>/<phase>`` whose names have such a word (``train.bin``,
    ``fineweb_val_000000.bin``), and where nothing there names train, those that name no split are for training.
    """
    if files := find_files(root / phase, split):
        return files
    from data.split_advice import missing_split  # imports this module

    raise UserError(missing_split(root, phase, split))


def find_files(folder: Path, split: str) -> list[Path]:
    """Return the token files of a split of the phase in ``folder``, or none. Raise ``UserError`` as ``listed``."""
    if not os.path.isdir(folder):  # not Path.is_dir, which raises where a folder above may not be searched
        return []
    if "/" in split:
        return token_files(folder / split) if os.path.isdir(folder / split) else []
    if files := files_in_folder_of(folder, split):
        return files
    named: dict[str, list[Path]] = {split: [], "": []}
    for file in token_files(folder):
        named.setdefault(split_of_name(file.name, folder.name), []).append(file)
    return named[split] or (named[""] if split == "train" else [])


def files_in_folder_of(folder: Path, split: str) -> list[Path]:
    """Return the token files in the folder of ``split``: that of this name, else the first that names it otherwise."""
    if os.path.isdir(folder / split) and (files := token_files(folder / split)):
        return files
    words = [word for word, meant in _WORDS.items() if meant == split]
    names = [name for name in listed(folder) if name.lower() in words and name != split]
    for name in sorted(names, key=lambda name: words.index(name.lower())):
        if os.path.isdir(folder / name) and (files := token_files(folder / name)):
            return files
    return []


def split_of_name(name: str, phase: str = "") -> str:
    """Return the split that the last such word in a name says, "test" for one that is not read, or nothing.

    The name of the ``phase`` itself at its beginning does not count.
    """
    rest = name[len(phase) :] if phase and name.startswith((f"{phase}-", f"{phase}_")) else name
    words = re.split("[^a-z]+", rest.lower())
    return next((_WORDS[word] for word in reversed(words) if word in _WORDS), "")


def files_not_read(root: Path, phase: str, split: str) -> list[Path]:
    """Return the token files that a user may take for a part of the split: deeper in its folder, or beside it."""
    folder = root / phase
    read = set(split_files(root, phase, split))
    own = folder / split
    below = folders_below(own)[1:] if os.path.isdir(own) else []
    deeper = [path for inner in below if os.access(inner, os.R_OK) for path in token_files(inner)]
    beside = [path for path in token_files(folder) if split_of_name(path.name, folder.name) in ("", split)]
    return [path for path in (*deeper, *beside) if path not in read]


def token_files(folder: Path) -> list[Path]:
    """Return the token files of a folder, without hidden ones: macOS writes ``._x.bin`` beside ``x.bin``.

    They are ordered by name, numbers in it by their value: ``x-1000.bin`` comes behind ``x-999.bin``.
    """
    names = [name for name in listed(folder) if name.endswith(SUFFIXES) and name[0] != "."]
    return [folder / name for name in sorted(names, key=_by_number)]


def _by_number(name: str) -> tuple[list[str | int], str]:
    """Return the key that orders names: text and numbers in turn, then the name itself, because 1 and 01 are equal."""
    parts = re.split("([0-9]+)", name)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


def listed(folder: Path) -> list[str]:
    """Return the names in a folder, sorted. Raise ``UserError``."""
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed ({error.strerror}): check the path and its permissions") from error


def folders_below(path: Path) -> list[Path]:
    """Return a directory and all directories below it that are not hidden."""
    found = []
    for folder, subfolders, _ in os.walk(path):
        subfolders[:] = [name for name in subfolders if name[0] != "."]
        found.append(Path(folder))
    return sorted(found)
