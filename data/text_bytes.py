"""Says how many bytes of text a token is on average, so that a loss can be given in bits per byte.

A loss per token depends on the tokenizer: with longer tokens each is harder to predict. Bits per byte do not.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data.dataset import PackedBinDataset
from data.shards import DATASET_JSON, ShardSet, missing_shards, read_manifest
from data.splits import phases_of
from data.tokenizer import load_tokenizer
from profiles.errors import UserError
from profiles.printable import brief
from profiles.spec import RunSpec

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_BLOCKS, _BLOCK_TOKENS = 32, 1024  # of a sample, spread over the split
_TIMES = 2  # that the bytes per token of a sample are of those of the split, at most
_POSSIBLE = (0.5, 100)  # bytes per token, where no tokenizer decodes a sample


def bytes_per_token(spec: RunSpec, split: str, opened: PackedBinDataset) -> dict[str, float | None]:
    """Return the UTF-8 bytes of text per token of each source of the ``opened`` split; a phase alone has the name "".

    They are those that ``dataset.json`` counts (``splits.NAME.bytes`` and ``tokens``). Where it counts none, or what
    cannot be, they are those of a sample, decoded with the tokenizer of the phase; None where there is neither. Raise
    ``UserError`` if a shard cannot be read.
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
    counted, measured = _ratio(_counts(folder, split)), _measured(folder, shards, tokenizer)
    return counted if counted and _agree(counted, measured) else measured


def count_problem(folder: Path, split: str, shards: ShardSet) -> str:
    """Return why the ``bytes`` that ``dataset.json`` counts of a split cannot be those of its ``shards``, or nothing.

    Raise ``UserError`` if a shard cannot be read.
    """
    counts = _counts(folder, split)
    if counts.get("bytes") is None:
        return ""
    counted, measured = _ratio(counts), _measured(folder, shards, None)
    if counted and _agree(counted, measured):
        return ""
    there = f" where a sample has {measured:.3g}" if measured else ""
    return (
        f"{folder / DATASET_JSON}: splits.{split}.bytes is {brief(counts['bytes'])}, which cannot be: for"
        f" {brief(counts.get('tokens'))} tokens {f'{counted:.3g} a token{there}' if counted else 'no size of a text'};"
        " bits per byte do not use it: correct it, take it out, or pack again"
    )


def miscounts(spec: RunSpec, opened: dict[str, PackedBinDataset]) -> dict[str, str]:
    """Return what ``dataset.json`` counts otherwise than the ``opened`` splits are, and a line about each.

    Tokens are not compared where shards that it lists are missing, which is said by itself. Raise ``UserError`` if a
    shard cannot be read.
    """
    folders, found = phases_of(spec), {}
    for split, data in opened.items():
        for source in data.sources:
            folder, shards = folders[source.name or spec.data.phase], source.shards
            where = f"{split} of {source.name}" if source.name else split
            if why := count_problem(folder, split, shards):
                found[f"bytes of {where}"] = why
            complete = not missing_shards(folder.parent, folder.name, split)
            if complete and (why := differs(folder, split, "tokens", _counts(folder, split), shards.tokens)):
                found[f"tokens of {where}"] = why
    return found


def differs(folder: Path, split: str, key: str, recorded: dict[str, Any], count: int | None) -> str:
    """Return that a split has another ``count`` of ``key`` than is ``recorded`` in ``dataset.json``, or nothing."""
    if type(recorded.get(key)) is not int or count is None or recorded[key] == count:
        return ""
    return (
        f"{folder / DATASET_JSON}: splits.{split}.{key} is {recorded[key]}, its files hold {count}: "
        "bring the missing files back or take the foreign ones out, or pack again"
    )


def _agree(counted: float, measured: float | None) -> bool:
    """Whether ``counted`` bytes per token may be those of text of which a sample has ``measured``."""
    least, most = (measured / _TIMES, measured * _TIMES) if measured else _POSSIBLE
    return least <= counted <= most


def _ratio(counts: dict[str, Any]) -> float | None:
    size, tokens = counts.get("bytes"), counts.get("tokens")
    if type(size) is not int or type(tokens) is not int or size <= 0 or tokens <= 0:
        return None
    return size / tokens


def _counts(folder: Path, split: str) -> dict[str, Any]:
    """Return what ``dataset.json`` says of a split, unchecked; nothing where it does not."""
    try:
        manifest = read_manifest(folder)
    except UserError:
        return {}
    splits: Any = manifest.raw.get("splits") if manifest else None
    found = splits.get(split) if isinstance(splits, dict) else None
    return found if isinstance(found, dict) else {}


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
