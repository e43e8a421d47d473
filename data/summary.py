"""Summarizes a dataset for the user: the files of each split, and token ids as text."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data import order
from data.id_check import check_ids
from data.shard_file import BareIds, Shard, read_shard
from data.shards import ShardSet, bare_ids, read_manifest, read_shards
from data.split_files import folders_below, split_files
from data.tokenizer import load_tokenizer
from profiles.errors import UserError

_SECONDS_FOR_IDS = 0.3  # a split
_BYTES = 256  # in a vocabulary of at most this size each id is a byte


def dataset_summary(root: Path, phase: str, vocab_size: int, context: int, validates: bool = True) -> dict[str, Any]:
    """Return a JSON-serializable summary of ``<root>/<phase>``. Errors become lines in ``problems``.

    A run that never ``validates`` needs no split for it.

    Fields: ``tokenizer`` (its path or None), ``problems``, and ``splits``. A split has its name ``split``, its
    ``files`` (``path``, ``dtype``, ``tokens``, ``bytes``, ``sequences`` of ``context`` tokens, ``problem``) and sums.
    """
    folder, problems, manifest = root / phase, [], None
    try:
        manifest = read_manifest(folder)
    except UserError as error:
        problems.append(str(error))
    tokenizer = folder / "tokenizer.json"
    buckets = [f"val/{path.name}" for path in folders_below(folder / "val") if path.parent == folder / "val"]
    splits = []
    for split in ("train", "val", *buckets):
        try:
            paths = split_files(root, phase, split)
        except UserError as error:
            if split != "val" or (validates and not buckets):
                problems.append(str(error))
            continue
        bare = bare_ids(manifest, vocab_size)
        try:
            shards = read_shards(paths, bare)
            files = [_entry(shard, context) for shard in shards]
        except UserError as error:
            read = [_file(path, bare.among(len(paths)), context) for path in paths]
            files, shards = [entry for entry, _ in read], tuple(shard for _, shard in read if shard)
            problems += [file["problem"] for file in files if file["problem"]] or [str(error)]
        try:
            check_ids(ShardSet(shards), vocab_size, _SECONDS_FOR_IDS)
        except UserError as error:
            problems.append(str(error))
        sums = {key: sum(file[key] or 0 for file in files) for key in ("tokens", "bytes", "sequences")}
        splits.append({"split": split, "files": files, **sums})
    return {
        "tokenizer": str(tokenizer) if os.path.isfile(tokenizer) else None,
        "problems": list(dict.fromkeys(problems)),
        "splits": splits,
    }


def _file(path: Path, bare: BareIds, context: int) -> tuple[dict[str, Any], Shard | None]:
    """Return the entry of a file, and its shard unless it has a problem."""
    try:
        shard = read_shard(path, bare)
    except UserError as error:
        unknown = dict.fromkeys(("dtype", "tokens", "sequences", "bytes"))
        return {"path": str(path), **unknown, "problem": str(error)}, None
    return _entry(shard, context), shard


def _entry(shard: Shard, context: int) -> dict[str, Any]:
    windows = order.window_count(shard.tokens, context)
    return {
        **{"path": str(shard.path), "problem": ""},
        **{"dtype": shard.dtype.name, "tokens": shard.tokens, "bytes": shard.bytes, "sequences": windows},
    }


def token_texts(folder: Path, ids: Sequence[int]) -> list[str] | None:
    """Return the text of each id by the tokenizer in ``folder``, or None if the ids cannot be decoded.

    A token that is only a part of a character is returned as its bytes, such as ``<E2 80>``. Raise ``UserError`` for a
    damaged tokenizer.
    """
    path = folder / "tokenizer.json"
    if not os.path.isfile(path):
        manifest = read_manifest(folder)
        if not (manifest and manifest.vocab_size and manifest.vocab_size <= _BYTES):
            return None
        return [chr(id) if id < 0x80 else f"<{id:02X}>" for id in ids]
    tokenizer = load_tokenizer(path)
    return [_token_text(tokenizer, id) for id in ids]


def _token_text(tokenizer: Any, id: int) -> str:
    text: str = tokenizer.decode([id], skip_special_tokens=False)
    token = tokenizer.id_to_token(id)
    if "\N{REPLACEMENT CHARACTER}" in text and token is not None and all(char in _BYTE_CHARS for char in token):
        return f"<{' '.join(f'{_BYTE_CHARS[char]:02X}' for char in token)}>"
    return text


def _byte_chars() -> dict[str, int]:
    """Return the characters that byte-level tokenizers use for bytes: printable bytes unchanged, others from U+0100."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(0x100 + i): byte for i, byte in enumerate(rest)}


_BYTE_CHARS = _byte_chars()
