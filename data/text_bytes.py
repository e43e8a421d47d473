"""Says how many bytes of text a token is on average, so that a loss can be given in bits per byte.

A loss per token depends on the tokenizer: with longer tokens each is harder to predict. Bits per byte do not.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data.dataset import PackedBinDataset
from data.shards import ShardSet, read_manifest
from data.splits import phases_of
from data.tokenizer import load_tokenizer
from profiles.errors import UserError
from profiles.spec import RunSpec

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_BLOCKS, _BLOCK_TOKENS = 32, 1024  # of a sample, spread over the split


def bytes_per_token(spec: RunSpec, split: str, opened: PackedBinDataset) -> dict[str, float | None]:
    """Return the UTF-8 bytes of text per token of each source of the ``opened`` split; a phase alone has the name "".

    They are those that ``dataset.json`` counts (``splits.NAME.bytes`` and ``tokens``), else those of a sample, decoded
    with the tokenizer of the phase; None where there is neither. Raise ``UserError`` if a shard cannot be read.
    """
    folders = phases_of(spec)
    return {
        source.name: bytes_per_token_of(folders[source.name or spec.data.phase], split, source.shards)
        for source in opened.sources
    }


def bytes_per_token_of(folder: Path, split: str, shards: ShardSet, tokenizer: Tokenizer | None = None) -> float | None:
    """Return the same of ``shards`` of a split of the phase in ``folder``, whose ``tokenizer`` may be loaded already.

    Raise ``UserError`` if a shard cannot be read.
    """
    return _counted(folder, split) or _measured(folder, shards, tokenizer)


def _counted(folder: Path, split: str) -> float | None:
    try:
        manifest = read_manifest(folder)
    except UserError:
        return None
    splits: Any = manifest.raw.get("splits") if manifest else None
    found = splits.get(split) if isinstance(splits, dict) else None
    if not isinstance(found, dict):
        return None
    size, tokens = found.get("bytes"), found.get("tokens")
    if type(size) is not int or type(tokens) is not int or size <= 0 or tokens <= 0:
        return None
    return size / tokens


def _measured(folder: Path, shards: ShardSet, tokenizer: Tokenizer | None) -> float | None:
    try:
        tokenizer = tokenizer or load_tokenizer(folder / "tokenizer.json")
    except UserError:
        return None
    size = tokens = 0
    for shard, start, count in _sample(shards):
        ids = shards.read(shard, start, count).astype(np.int64).tolist()
        try:
            size += len(tokenizer.decode(ids, skip_special_tokens=True).encode())  # an end of text is no text
        except OverflowError:  # below 0, or of more than 32 bits
            return None
        tokens += count
    return size / tokens if size else None


def _sample(shards: ShardSet) -> list[tuple[int, int, int]]:
    """Return blocks of tokens, spread evenly over all shards: index of the shard, first token, number of tokens."""
    starts = np.cumsum([0, *(shard.tokens for shard in shards.shards)])
    found = []
    for place in np.linspace(0, max(0, shards.tokens - _BLOCK_TOKENS), _BLOCKS).astype(int):
        shard = int(np.searchsorted(starts, place, "right")) - 1
        offset = int(place - starts[shard])
        found.append((shard, offset, min(_BLOCK_TOKENS, shards.shards[shard].tokens - offset)))
    return found
