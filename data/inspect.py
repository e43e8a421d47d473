"""Inspects packed files for the user: format, type of the ids, tokens, documents, text, and problems."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from data.document_lengths import lengths_of
from data.order import window_count
from data.phase_folders import phase_above
from data.shard_file import BARE, BareIds, Shard, read_shard
from data.shards import DATASET_JSON, Manifest, ShardSet, bare_ids, read_manifest, with_one_type
from data.split_files import folders_below, token_files
from data.text_bytes import bytes_per_token_of
from data.tokenizer import load_tokenizer
from profiles.errors import UserError

FIELDS = (
    *("path", "format", "dtype", "dtype_from", "tokens", "bytes", "sequences", "highest_id", "sampled", "documents"),
    *("longest_document", "median_document", "document_tokens", "bytes_per_token", "first_ids", "peek"),
)
_FIRST = 16
_PEEK = 64
_HIGHEST = (1 << 32) - 1
# About 2 MB per shard, spread over the whole file.
_CHUNKS, _CHUNK_TOKENS = 16, 65536


def inspect_path(path: Path, vocab_size: int = 0, context: int = 0) -> list[dict[str, Any]]:
    """Return one JSON-serializable entry per shard of ``path``, a token file, a phase or a directory of phases.

    ``vocab_size`` is that of a model, for a phase that names none; with a ``context`` sequences are counted.

    Fields: ``path``, ``format`` (as in ``Shard``), ``dtype`` and ``dtype_from`` (what says it), ``tokens``, ``bytes``,
    ``sequences``, ``highest_id`` of the ``sampled`` tokens; ``documents``, ``longest_document`` and
    ``median_document`` in the first ``document_tokens`` tokens; ``bytes_per_token``, ``first_ids``, ``peek`` (the text
    of the first tokens, if the phase has a ``tokenizer.json``), and ``problems`` (one line each). Unknown values are
    None. Raise ``UserError`` if there is nothing to inspect.
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
    layouts = _layouts(files, vocab_size)
    return [_entry(file, layouts[file], len(files), tokenizers, vocab_size, context) for file in files]


@dataclass(frozen=True)
class _Layout:
    """How a run reads a file, from what its type is known, and what is wrong with it."""

    shard: Shard | None
    dtype_from: str = ""
    problem: str = ""


def _layouts(files: list[Path], vocab_size: int) -> dict[Path, _Layout]:
    """Read each file alone, then those of a folder together: a run gives all that do not say their type the same."""
    found: dict[Path, _Layout] = {}
    for _, group in groupby(files, lambda file: file.parent):
        beside = list(group)
        try:
            bare = bare_ids(read_manifest(phase_above(beside[0])), vocab_size)
        except UserError:  # each entry says so
            bare = bare_ids(None, vocab_size)
        for path in beside:
            try:
                shard = read_shard(path, bare)
                found[path] = _Layout(shard, _dtype_from(shard, bare))
            except UserError as error:
                found[path] = _Layout(None, problem=str(error))
        shards = [layout.shard for path in beside if (layout := found[path]).shard is not None]
        try:
            together = with_one_type(shards, bare)
        except UserError as error:
            found |= {one.path: replace(found[one.path], problem=str(error)) for one in shards if one.format == BARE}
            continue
        for alone, one in zip(shards, together, strict=True):
            if alone != one:
                found[one.path] = _Layout(one, "the files beside it")
    return found


def _entry(
    path: Path, layout: _Layout, files: int, tokenizers: dict[Path, Any], vocab_size: int, context: int
) -> dict[str, Any]:
    entry: dict[str, Any] = dict.fromkeys(FIELDS)
    problems: list[str] = []
    id_problems: list[str] = []
    entry |= {"path": str(path), "problems": problems}
    phase, manifest = phase_above(path), None
    try:
        manifest = read_manifest(phase)
    except UserError as error:
        problems.append(str(error))
    with contextlib.suppress(OSError):
        entry["bytes"] = path.stat().st_size
    shard = layout.shard
    if layout.problem:
        problems.append(layout.problem)
    if shard is None:
        return entry
    shards = ShardSet((shard,))
    try:
        first = shards.read(0, 0, min(_PEEK, shard.tokens))
        highest = _highest(shards, manifest, vocab_size, id_problems)
    except UserError as error:
        problems.append(str(error))
        return entry
    problems += id_problems
    entry |= {"format": shard.format, "dtype": shard.dtype.name, "dtype_from": layout.dtype_from}
    entry |= {"tokens": shard.tokens, "first_ids": first[:_FIRST].tolist()} | highest
    entry["sequences"] = window_count(shard.tokens, context) if context else None
    tokenizer = _tokenizer(phase, tokenizers, problems)
    split = path.absolute().parent.relative_to(phase).as_posix()
    try:
        entry |= _documents(shards, manifest, files)
        if not id_problems:
            entry["bytes_per_token"] = bytes_per_token_of(phase, split, shards, tokenizer)
    except UserError as error:
        problems.append(str(error))
    if tokenizer and not id_problems:
        entry["peek"] = tokenizer.decode(first.tolist(), skip_special_tokens=False)
    return entry


def _dtype_from(shard: Shard, bare: BareIds) -> str:
    """Return what says the type of the ids."""
    if shard.format != BARE:
        return "index" if shard.format in ("megatron", "datatrove") else "header"
    if bare.declared is not None:
        return DATASET_JSON
    return "the ids" if shard.evident else "the vocabulary" if bare.vocab_size else "nothing: assumed"


def _documents(shards: ShardSet, manifest: Manifest | None, files: int) -> dict[str, int]:
    end = manifest.raw.get("eot_id") if manifest else None
    found = lengths_of(shards, end if type(end) is int else None, files)
    if found is None:
        return {}
    return {
        **{"documents": found.count, "longest_document": found.longest, "median_document": found.median},
        "document_tokens": found.tokens,
    }


def _highest(shards: ShardSet, manifest: Manifest | None, vocab_size: int, problems: list[str]) -> dict[str, int]:
    """Return the highest id in evenly spaced chunks, or in the whole file if it is small. Raise ``UserError``."""
    (shard,) = shards.shards
    if shard.tokens <= _CHUNKS * _CHUNK_TOKENS:
        starts = np.array([0])
        length = shard.tokens
    else:
        starts = np.linspace(0, shard.tokens - _CHUNK_TOKENS, _CHUNKS).astype(np.int64)
        length = _CHUNK_TOKENS
    ranges = [(int(ids.min()), int(ids.max())) for start in starts for ids in [shards.read(0, int(start), length)]]
    lowest, highest = min(low for low, _ in ranges), max(high for _, high in ranges)
    if lowest < 0 or highest > _HIGHEST:
        worst = lowest if lowest < 0 else highest
        problems.append(f"{shard.path}: holds {worst}, which is no token id: pack it again without it")
    if manifest and manifest.vocab_size and highest >= manifest.vocab_size:
        problems.append(
            f"{shard.path}: holds id {highest}, outside the vocabulary of {manifest.vocab_size} that {manifest.path} "
            "names: pack it again with that tokenizer, or correct the dtype"
        )
    elif vocab_size and highest >= vocab_size:
        problems.append(
            f"{shard.path}: holds id {highest}, outside the model's vocabulary of {vocab_size}: use a model with a "
            f"vocabulary of at least {highest + 1}, or other data"
        )
    return {"highest_id": highest, "sampled": len(starts) * length}


def _tokenizer(phase: Path, tokenizers: dict[Path, Any], problems: list[str]) -> Any:
    """Return the tokenizer of a phase, or None without one."""
    path = phase / "tokenizer.json"
    if not os.path.exists(path):
        return None
    if path not in tokenizers:
        try:
            tokenizers[path] = load_tokenizer(path)
        except UserError as error:
            problems.append(str(error))
            return None
    return tokenizers[path]
