"""Finds the phases that a path names, and the one that a shard belongs to."""

from __future__ import annotations

import os
from pathlib import Path

from data.shards import DATASET_JSON
from data.split_files import find_files, listed
from profiles.errors import UserError


def phases_in(path: Path) -> list[Path]:
    """Return ``path``, an absolute one, if it is a phase, else the phases in it; none are a ``UserError``."""
    above = next((p for p in list(path.parents)[:2] if os.path.lexists(p / DATASET_JSON)), path.parent)
    if not os.path.isdir(path):
        raise UserError(f"{path}: is no folder; this needs a whole phase: name {above}")
    if not os.path.lexists(path / DATASET_JSON) and os.path.lexists(above / DATASET_JSON):
        raise UserError(f"{path}: is a part of a phase; this needs a whole one: name {above}")
    if _is_phase(path):
        return [path]
    inner = [path / name for name in listed(path) if name[0] != "." and os.path.isdir(path / name)]
    if found := [folder for folder in inner if _is_phase(folder)]:
        return found
    raise UserError(f"{path}: holds no token file (.bin, .npy, .ds): name a phase or a folder of phases")


def phase_above(shard: Path) -> Path:
    """Return the nearest parent with a ``dataset.json`` or a tokenizer; shards are at most two levels below it."""
    for folder in list(shard.absolute().parents)[:3]:
        if os.path.exists(folder / DATASET_JSON) or os.path.exists(folder / "tokenizer.json"):
            return folder
    return shard.absolute().parent


def _is_phase(folder: Path) -> bool:
    return os.path.lexists(folder / DATASET_JSON) or any(find_files(folder, split) for split in ("train", "val"))
