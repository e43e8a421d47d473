"""Says why a split has no files and which command puts the files that lie there in their place.

People have their token files as other trainers expect them: ``train.bin`` and ``val.bin`` in one folder (nanoGPT),
``fineweb_train_000001.bin`` (modded-nanogpt), a folder ``validation``. Each command works when it is pasted.
"""

from __future__ import annotations

import os
import re
import shlex
import tomllib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

# Names of a split, best first: where a folder has both validation and test files, the latter are left alone.
_WORDS = {"train": (("train", "training"),), "val": (("val", "valid", "validation"), ("dev", "eval", "test"))}
_LISTED = 3  # more files are named by a pattern
_NUMPY = ".npy"
_NOT_READ = (".bin.gz", ".bin.zst", ".ds", ".parquet", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".arrow", ".npz", ".txt")


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
        _nested(folder),
        _other_folders(root / phase),
        _loose_files(root / phase, root / phase),
        _root_is_a_phase(root),
        _loose_files(root, root / phase),
        _no_validation(root / phase) if split == "val" else "",
        _other_phases(root, split),
        *(_other_formats(place) for place in (folder, root / phase, root)),
    ):
        if remedy:
            return f"{missing}{remedy}"
    return f"{missing}: build a small corpus with `make demo`, or put shards at {folder}/{phase}-{_flat(split)}-000.bin"


def _flat(split: str) -> str:
    return split.replace("/", "-")


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
        there = ", ".join(name for name in _names(root, "") if os.path.isdir(root / name)) or "none"
        return f"data.phase: {root} has no {phase!r} (its phases: {there})"
    if os.path.isdir(root / phase / split):
        return f"{root / phase / split}: holds no .bin file"
    return f"{root / phase}: has no {split!r} split"


def _names(folder: Path, suffix: str) -> list[str]:
    """Return the names in ``folder``, if it exists, that end with ``suffix``: sorted, without hidden ones."""
    try:
        return sorted(name for name in os.listdir(folder) if name.endswith(suffix) and name[0] != ".")
    except OSError:
        return []


def _by_split(names: Sequence[str]) -> dict[str, list[str]]:
    """Return the names of each split that they name."""
    words = {name: set(re.split("[^a-z]+", name.lower())) for name in names}
    found: dict[str, list[str]] = {}
    for split, groups in _WORDS.items():
        for group in groups:
            if chosen := [name for name in names if words[name] & set(group)]:
                found[split] = chosen
                break
    return found


def _is_missing(phase: Path, split: str) -> bool:
    return not _names(phase / split, ".bin") and not [
        name for name in _names(phase, ".bin") if name.startswith(f"{phase.name}-{split}-")
    ]


def _other_folders(phase: Path) -> str:
    """Advice where a split's folder has another name, such as ``validation``."""
    folders = [name for name in _names(phase, "") if name not in _WORDS and _names(phase / name, ".bin")]
    links = []
    for split, names in _by_split(folders).items():
        if _is_missing(phase, split):
            remove = [f"rmdir {split}"] if os.path.isdir(phase / split) else []
            links += [*remove, f"ln -s {_quoted(names[0])} {split}"]
    return f", but a folder with another name; link it with: {_within(phase, *links)}" if links else ""


def _nested(folder: Path) -> str:
    """Advice where the .bin files of a split lie one folder deeper; those of two folders may have the same name."""
    count = sum(len(_names(folder / name, ".bin")) for name in _names(folder, ""))
    if not count:
        return ""
    loop = 'for file in */*.bin; do ln -s "$file" "${file%/*}-${file##*/}"; done'
    return f", but {count} one folder deeper; link them with: {_within(folder, loop)}"


def _loose_files(folder: Path, phase: Path) -> str:
    """Advice where .bin files lie in ``folder``, outside the folder of a split."""
    names = _names(folder, ".bin")
    splits = _by_split(names) or ({"train": names} if names else {})
    splits = {split: chosen for split, chosen in splits.items() if _is_missing(phase, split)}
    if not splits:
        return ""
    target = os.path.relpath(phase, folder)
    commands = ["mkdir -p " + " ".join(_quoted(os.path.normpath(os.path.join(target, split))) for split in splits)]
    # Patterns and links are both relative to the folder that holds the links, so they survive a move of the whole.
    place, source = ("" if target == "." else f"{target}/"), os.path.relpath(folder, phase / "train")
    for split, chosen in splits.items():
        commands += [f"cd {_quoted(place + split)}", f"ln -s {_files(source, chosen, names)} ."]
        place = "../"
    count = sum(map(len, splits.values()))
    files = f"{splits.popitem()[1][0]} lies" if count == 1 else f"{count} .bin files lie"
    return f", but {files} there; link with: {_within(folder, *commands)}"


def _within(folder: Path, *commands: str) -> str:
    """Return the commands as one that changes to ``folder`` and leaves the shell where it is."""
    return f"({' && '.join((f'cd {_quoted(folder)}', *commands))})"


def _files(folder: str, chosen: Sequence[str], names: Sequence[str]) -> str:
    """Return shell words for the ``chosen`` of the ``names`` in ``folder``: one pattern if they are many."""
    start = os.path.commonprefix(chosen).removesuffix(".bin")  # noqa: RUF071  characters are meant
    if len(chosen) > _LISTED and [name for name in names if name.startswith(start)] == list(chosen):
        return f"{shlex.quote(f'{folder}/{start}')}*.bin"
    return " ".join(_quoted(f"{folder}/{name}") for name in chosen)


def _root_is_a_phase(root: Path) -> str:
    if not _names(root / "train", ".bin"):
        return ""
    return f", but a split itself; use -s {_setting('data.root', root.parent)} -s {_setting('data.phase', root.name)}"


def _other_phases(root: Path, split: str) -> str:
    phases = [name for name in _names(root, "") if os.path.isdir(root / name) and not _is_missing(root / name, split)]
    return f"; use -s {_setting('data.phase', phases[0])}" if phases else ""


def _no_validation(phase: Path) -> str:
    """Advice for a phase with training data only."""
    if _is_missing(phase, "train"):
        return ""
    shards = _names(phase / "train", ".bin")
    advice = "; train without validation with -s val_every=0"
    if len(shards) < 2:
        return advice
    move = f"mv {_quoted(f'train/{shards[-1]}')} val/"
    return f"{advice}, or set a shard aside for it with: {_within(phase, 'mkdir -p val', move)}"


def _other_formats(folder: Path) -> str:
    """Advice where a folder holds files that are no shards."""
    if arrays := _names(folder, _NUMPY):
        return f", but {_counted(len(arrays), _NUMPY)}; convert with: mla-tui data convert {_quoted(folder)}"
    counts = Counter({suffix: len(_names(folder, suffix)) for suffix in _NOT_READ})
    suffix, count = counts.most_common(1)[0]
    if not count:
        return ""
    return f", but {_counted(count, suffix)} in {folder}, which mla-tui does not read; pack the text into token ids"


def _counted(count: int, suffix: str) -> str:
    return f"{count} {suffix} file{'s' if count > 1 else ''}"


def _setting(key: str, value: Path | str) -> str:
    """Return a shell word for ``-s``. A name that TOML reads as another type, such as 2024, gets quotes of its own."""
    text = str(value)
    try:
        tomllib.loads(f"value = {text}")
    except ValueError:
        return _quoted(f"{key}={text}")
    return _quoted(f'{key}="{text}"')


def _quoted(path: Path | str) -> str:
    return shlex.quote(str(path))
