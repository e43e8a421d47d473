"""What packed files hold, at a glance: for people who wonder whether their shards are what they think."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data.shards import DATASET_JSON, Manifest, Shard, bare_dtype, bin_files, map_shard, read_manifest, read_shard
from profiles.errors import UserError

_FIRST = 16
_PEEK = 64
# About 2 MB of reading a shard, spread over the whole of it.
_CHUNKS, _CHUNK_TOKENS = 16, 65536


def inspect_path(path: Path) -> list[dict[str, Any]]:
    """One JSON-able entry a shard, by path, for a ``.bin`` file, a phase or a root of phases.

    ``path`` ``format`` ("bare" or "header") ``dtype`` ``tokens`` ``bytes`` ``highest_id`` among the ``sampled`` tokens
    ``first_ids`` ``peek`` (their text and a little more, where a ``tokenizer.json`` lies in the phase) ``problems``
    (one line each). What cannot be known is None. Raises UserError where there is nothing to inspect.
    """
    if path.is_dir():
        files = [file for folder in _folders(path) for file in bin_files(folder)]
    elif path.exists():
        files = [path]
    else:
        raise UserError(f"{path}: does not exist: name a .bin file, a phase or a directory of phases")
    if not files:
        raise UserError(f"{path}: holds no .bin file: name a .bin file, a phase or a directory of phases")
    tokenizers: dict[Path, Any] = {}
    return [_entry(file, tokenizers) for file in files]


def _folders(path: Path) -> list[Path]:
    """A directory and all visible ones below it."""
    found = []
    for folder, subfolders, _ in os.walk(path):
        subfolders[:] = [name for name in subfolders if name[0] != "."]
        found.append(Path(folder))
    return sorted(found)


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
    try:
        entry["bytes"] = path.stat().st_size
        shard = read_shard(path, bare_dtype(manifest, 0))
        ids = map_shard(shard)
    except OSError as error:
        problems.append(f"{path}: cannot be read ({error.strerror})")
    except UserError as error:
        problems.append(str(error))
    else:
        entry |= {"format": "header" if shard.header else "bare", "dtype": shard.dtype.name, "tokens": shard.tokens}
        entry |= {"first_ids": ids[:_FIRST].tolist()} | _highest(shard, ids, manifest, problems)
        entry["peek"] = _peek(phase, ids, tokenizers, problems)
    return entry


def _phase(path: Path) -> Path:
    """The nearest directory above with a ``dataset.json`` or a tokenizer: shards lie at most two levels below it."""
    for folder in list(path.absolute().parents)[:3]:
        if (folder / DATASET_JSON).exists() or (folder / "tokenizer.json").exists():
            return folder
    return path.absolute().parent


def _highest(shard: Shard, ids: npt.NDArray[Any], manifest: Manifest | None, problems: list[str]) -> dict[str, int]:
    """The highest id in evenly spaced chunks, which are the whole file where it is small."""
    if len(ids) <= _CHUNKS * _CHUNK_TOKENS:
        starts = np.array([0])
        length = len(ids)
    else:
        starts = np.linspace(0, len(ids) - _CHUNK_TOKENS, _CHUNKS).astype(np.int64)
        length = _CHUNK_TOKENS
    highest = max(int(ids[start : start + length].max()) for start in starts)
    if manifest and manifest.vocab_size and highest >= manifest.vocab_size:
        problems.append(
            f"{shard.path}: holds id {highest}, outside the vocabulary of {manifest.vocab_size} that {manifest.path} "
            "names: pack it again with that tokenizer, or mend the file's dtype"
        )
    return {"highest_id": highest, "sampled": len(starts) * length}


def _peek(phase: Path, ids: npt.NDArray[Any], tokenizers: dict[Path, Any], problems: list[str]) -> str | None:
    """The text of the first ids, None without a tokenizer."""
    path = phase / "tokenizer.json"
    if not path.exists():
        return None
    if path not in tokenizers:
        # Imported here: the rest of the floor must load without it.
        from tokenizers import Tokenizer

        try:
            tokenizers[path] = Tokenizer.from_file(str(path))
        except Exception as error:  # noqa: BLE001  the library raises nothing narrower for a damaged file
            problems.append(f"{path}: is not a tokenizer ({error}): the text cannot be shown")
            return None
    text: str = tokenizers[path].decode(ids[:_PEEK].tolist(), skip_special_tokens=False)
    return text
