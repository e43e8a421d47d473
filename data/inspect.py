"""Inspects packed files for the user: format, dtype, tokens, highest id, first tokens as text, and problems."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data.shard_file import read_shard
from data.shards import DATASET_JSON, Manifest, ShardSet, bare_ids, read_manifest
from data.split_files import folders_below, token_files
from data.tokenizer import load_tokenizer
from profiles.errors import UserError

_FIRST = 16
_PEEK = 64
# About 2 MB per shard, spread over the whole file.
_CHUNKS, _CHUNK_TOKENS = 16, 65536


def inspect_path(path: Path) -> list[dict[str, Any]]:
    """Return one JSON-serializable entry per shard of ``path``, a token file, a phase or a directory of phases.

    Fields: ``path``, ``format`` (as in ``Shard``), ``dtype``, ``tokens``, ``bytes``, ``highest_id`` of the
    ``sampled`` tokens, ``first_ids``, ``peek`` (the text of the first tokens, if the phase has a ``tokenizer.json``),
    and ``problems`` (one line each). Unknown values are None. Raise ``UserError`` if there is nothing to inspect.
    """
    if os.path.isdir(path):
        files = [file for folder in folders_below(path) for file in token_files(folder)]
    elif os.path.exists(path):
        files = [path]
    else:
        raise UserError(f"{path}: does not exist: name a token file, a phase or a directory of phases")
    if not files:
        raise UserError(f"{path}: holds no token file (.bin, .npy, .ds): name one, a phase or a directory of phases")
    tokenizers: dict[Path, Any] = {}
    return [_entry(file, tokenizers) for file in files]


def _entry(path: Path, tokenizers: dict[Path, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = dict.fromkeys(
        ("path", "format", "dtype", "tokens", "bytes", "highest_id", "sampled", "first_ids", "peek")
    )
    problems: list[str] = []
    entry |= {"path": str(path), "problems": problems}
    phase, manifest = _phase(path), None
    try:
        manifest = read_manifest(phase)
    except UserError as error:
        problems.append(str(error))
    with contextlib.suppress(OSError):
        entry["bytes"] = path.stat().st_size
    try:
        shard = read_shard(path, bare_ids(manifest, 0))
        shards = ShardSet((shard,))
        first = shards.read(0, 0, min(_PEEK, shard.tokens))
        highest = _highest(shards, manifest, problems)
    except UserError as error:
        problems.append(str(error))
    else:
        entry |= {"format": shard.format, "dtype": shard.dtype.name, "tokens": shard.tokens}
        entry |= {"first_ids": first[:_FIRST].tolist()} | highest
        entry["peek"] = _peek(phase, first, tokenizers, problems)
    return entry


def _phase(path: Path) -> Path:
    """Return the nearest parent with a ``dataset.json`` or a tokenizer; shards are at most two levels below it."""
    for folder in list(path.absolute().parents)[:3]:
        if os.path.exists(folder / DATASET_JSON) or os.path.exists(folder / "tokenizer.json"):
            return folder
    return path.absolute().parent


def _highest(shards: ShardSet, manifest: Manifest | None, problems: list[str]) -> dict[str, int]:
    """Return the highest id in evenly spaced chunks, or in the whole file if it is small. Raise ``UserError``."""
    (shard,) = shards.shards
    if shard.tokens <= _CHUNKS * _CHUNK_TOKENS:
        starts = np.array([0])
        length = shard.tokens
    else:
        starts = np.linspace(0, shard.tokens - _CHUNK_TOKENS, _CHUNKS).astype(np.int64)
        length = _CHUNK_TOKENS
    highest = max(int(shards.read(0, int(start), length).max()) for start in starts)
    if manifest and manifest.vocab_size and highest >= manifest.vocab_size:
        problems.append(
            f"{shard.path}: holds id {highest}, outside the vocabulary of {manifest.vocab_size} that {manifest.path} "
            "names: pack it again with that tokenizer, or correct the dtype"
        )
    return {"highest_id": highest, "sampled": len(starts) * length}


def _peek(phase: Path, first: npt.NDArray[Any], tokenizers: dict[Path, Any], problems: list[str]) -> str | None:
    """Return the text of the first ids, or None without a tokenizer."""
    path = phase / "tokenizer.json"
    if not os.path.exists(path):
        return None
    if path not in tokenizers:
        try:
            tokenizers[path] = load_tokenizer(path)
        except UserError as error:
            problems.append(str(error))
            return None
    text: str = tokenizers[path].decode(first.tolist(), skip_special_tokens=False)
    return text
