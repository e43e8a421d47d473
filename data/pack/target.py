"""The folder of packed data: what is there before a pack, and how the result of one gets there."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.pack.manifest import KIND
from data.pack.request import Request
from data.pack.split_rule import DIGEST_BYTES, SPLITS
from data.pack.vocabulary import TOKENIZER_JSON
from data.shards import DATASET_JSON, read_manifest
from profiles.errors import UserError
from profiles.reader import Table

DIGESTS = "documents.blake2b"  # of every document, 16 bytes each
COUNTED = ("documents", "tokens", "bytes")  # of each split
SOURCES = "sources.jsonl"  # every file that was read, a line each


@dataclass(frozen=True, slots=True)
class Existing:
    """What a pack adds to: the manifest, the shards of each split, and the sizes of the two lists by then."""

    manifest: dict[str, Any]
    shards: dict[str, int]
    digests: int
    sources: int


def check_target(request: Request) -> Existing | None:
    """Return what ``--append`` adds to, or None for a new data set. Raise ``UserError`` where neither is possible."""
    target = request.target
    if not request.append:
        if os.path.lexists(target) and not (os.path.isdir(target) and set(os.listdir(target)) <= {TOKENIZER_JSON}):
            raise UserError(f"{target}: exists: add documents to it with --append, or choose another --phase")
        return None
    manifest = read_manifest(target) if os.path.isdir(target) else None
    if manifest is None or manifest.raw.get("kind") != KIND:
        raise UserError(f"--append: {target} holds no data that data pack wrote: pack into another --phase")
    table = Table(manifest.raw, str(manifest.path))
    splits = table.table("splits")
    counts = {split: [splits.table(split).integer(key) for key in COUNTED] for split in SPLITS}
    documents = sum(first for first, *_ in counts.values())
    for key in ("sources", "packs"):
        if not isinstance(manifest.raw.get(key), list):
            raise table.fault(key, "a list")
    tokenizer = target / TOKENIZER_JSON
    if not tokenizer.is_file() or sha256_of(tokenizer) != table.table("tokenizer").text("sha256"):
        raise UserError(f"--append: {tokenizer} is not the one that packed {target}: put that back")
    lists = {name: target / name for name in (DIGESTS, SOURCES)}
    for path in lists.values():
        if not path.is_file():
            raise UserError(f"--append: {path} is missing: put it back, or pack everything into another --phase")
    if lists[DIGESTS].stat().st_size != documents * DIGEST_BYTES:
        raise UserError(f"--append: {lists[DIGESTS]} has not {documents} documents: pack into another --phase")
    hashes = table.table("sha256").content
    shards = {split: sum(name.startswith(f"{split}/") for name in hashes) for split in SPLITS}
    table.text("eot")
    return Existing(manifest.raw, shards, documents * DIGEST_BYTES, lists[SOURCES].stat().st_size)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def recorded_val(manifest: dict[str, Any]) -> float | None:
    """Return the fraction for validation of the last pack that a ``dataset.json`` tells of, or None."""
    try:
        value = manifest["packs"][-1]["options"]["val"]
    except (KeyError, IndexError, TypeError):
        return None
    return value if isinstance(value, float) and 0 <= value <= 0.5 else None


def publish(built: Path, target: Path) -> None:
    """Move what was built to ``target``: as a whole if nothing is there, else file by file, ``dataset.json`` last.

    It can be repeated after it was interrupted. Raise ``OSError``.
    """
    if not built.is_dir():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.is_dir() or not os.listdir(target):
        built.rename(target)
        return
    files = sorted((path for path in built.rglob("*") if path.is_file()), key=lambda path: path.name == DATASET_JSON)
    for path in files:
        place = target / path.relative_to(built)
        place.parent.mkdir(exist_ok=True)
        path.rename(place)
    shutil.rmtree(built)
