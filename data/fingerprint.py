"""Identifies the data of a run: of each shard the name, size, tokens and a hash; tokenizer, end of text, weights.

A run that continues on other shards would silently read sequences twice, or never. So every checkpoint stores the
fingerprint of the shards that its run reads, and a run that resumes from it compares them with those that are there.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from data.dtypes import DTYPES
from data.shard_file import Shard
from data.shards import read_manifest
from profiles.errors import UserError
from profiles.names import check_below
from profiles.reader import open_regular

BLOCK_BYTES = 4096  # of a shard some blocks are hashed; one of fewer bytes is hashed whole
_MOST_BLOCKS, _LEAST_BLOCKS, _ALL_BLOCKS = 64, 8, 1 << 16  # of a shard, and of all in a split
TOKENIZER = "tokenizer.json"
_NAMED = 3  # differences that a message names


@dataclass(frozen=True, slots=True)
class ShardPrint:
    """One shard. ``sampled``: a hash of ``blocks`` blocks of it; ``sha256``: what dataset.json says, or empty.

    ``name`` is relative to the folder of the phase, in a mixture to that of all phases.
    """

    name: str
    bytes: int
    tokens: int
    dtype: str
    header: int
    blocks: int
    sampled: str
    sha256: str


@dataclass(frozen=True)
class Fingerprint:
    """The shards of each split, in their order, and the hash of the tokenizer (empty where there is none).

    ``weights`` are those of the phases of a mixture. ``ends``: the id that ends a document of each phase that says one
    (``eot_id`` in dataset.json); of a phase alone under "".
    """

    splits: dict[str, tuple[ShardPrint, ...]]
    tokenizer: str
    weights: dict[str, float] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)

    def sources(self, split: str) -> dict[str, tuple[ShardPrint, ...]]:
        """Return the shards of each source, with names relative to its phase; {"": shards} without a mixture."""
        shards = self.splits.get(split, ())
        if not self.weights:
            return {"": shards}
        found: dict[str, list[ShardPrint]] = {phase: [] for phase in self.weights}
        for shard in shards:  # of phases inside each other, the inner one has it
            phase = max((phase for phase in found if shard.name.startswith(f"{phase}/")), key=len)
            found[phase].append(replace(shard, name=shard.name.removeprefix(f"{phase}/")))
        return {phase: tuple(shards) for phase, shards in found.items()}

    @cached_property
    def digest(self) -> str:
        """A hash of everything in it, 16 hexadecimal digits."""
        content = json.dumps(self.to_dict(), sort_keys=True).encode()
        return hashlib.blake2b(content, digest_size=8).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; :meth:`from_dict` reads them."""
        return {
            "splits": {split: [asdict(shard) for shard in shards] for split, shards in self.splits.items()},
            "tokenizer": self.tokenizer,
            "weights": self.weights,
            "ends": self.ends,
        }

    @classmethod
    def from_dict(cls, content: Any, source: str) -> Fingerprint:
        """Read what :meth:`to_dict` wrote into ``source``. Raise ``UserError`` where it is damaged."""
        try:
            splits = {
                str(split): tuple(_shard_print(shard) for shard in shards)
                for split, shards in content["splits"].items()
            }
            if not splits["train"]:
                raise ValueError
            weights = {check_below("phase", _text(phase)): _weight(w) for phase, w in content["weights"].items()}
            ends = {_text(phase): _end(id) for phase, id in content.get("ends", {}).items()}  # older ones have none
            found = cls(splits, _text(content["tokenizer"]), dict(sorted(weights.items())), ends)
            if not all(found.sources("train").values()):
                raise ValueError
            return found
        except (KeyError, TypeError, ValueError, AttributeError, UserError):
            raise UserError(f"{source}: the fingerprint of its data is damaged; take an earlier checkpoint") from None


def fingerprint(folder: Path, splits: Mapping[str, Iterable[Shard]]) -> Fingerprint:
    """Return the fingerprint of the opened shards of each split of the phase in ``folder``. Raise ``UserError``.

    It reads 64 blocks of 4 KiB of a shard; of more than 1024 shards fewer each, at least 8. A shard that was replaced
    differs in all of them, and 20 000 shards are read in seconds.
    """
    manifest = read_manifest(folder)
    recorded = manifest.raw.get("sha256") if manifest else None
    hashes = recorded if isinstance(recorded, dict) else {}
    end = manifest.raw.get("eot_id") if manifest else None
    return Fingerprint(
        {split: _prints_of(folder, tuple(shards), hashes) for split, shards in splits.items()},
        _tokenizer_hash(folder),
        ends={"": end} if type(end) is int and end >= 0 else {},
    )


def mixture_fingerprint(phases: Mapping[str, Fingerprint], weights: Mapping[str, float]) -> Fingerprint:
    """Return the fingerprint of a mixture of phases, of which each has its own. Raise ``UserError``.

    Their ids must be of one tokenizer, as far as that is known.
    """
    tokenizers = {found.tokenizer: phase for phase, found in phases.items() if found.tokenizer}
    if len(tokenizers) > 1:
        one, other = list(tokenizers.values())[:2]
        raise UserError(
            f"data.sources: {one} and {other} have different tokenizers ({TOKENIZER}), so their ids mean other texts: "
            "pack one of them again"
        )
    splits = dict.fromkeys(split for found in phases.values() for split in found.splits)
    return Fingerprint(
        {
            split: tuple(
                replace(shard, name=f"{phase}/{shard.name}")
                for phase, found in phases.items()
                for shard in found.splits.get(split, ())
            )
            for split in splits
        },
        next(iter(tokenizers), ""),
        dict(weights),
        {phase: end for phase, found in phases.items() for end in found.ends.values()},
    )


def same_content(path: Path, shard: ShardPrint) -> bool:
    """Return whether the file at ``path`` is the shard that ``shard`` describes."""
    try:
        size, sampled = _sample(path, shard.blocks)
    except OSError:
        return False
    return size == shard.bytes and sampled == shard.sampled


def differences(before: Fingerprint, after: Fingerprint) -> str:
    """Return in one line how ``after`` differs from ``before``; empty where it does not."""
    found: list[str] = []
    for split in dict.fromkeys((*before.splits, *after.splits)):
        if split not in before.splits or split not in after.splits:
            continue  # a run that begins to validate, or no longer does, reads the same training data
        old = {shard.name: shard for shard in before.splits[split]}
        new = {shard.name: shard for shard in after.splits[split]}
        found += [f"{name} is missing" for name in old if name not in new]
        found += [f"{name} is new" for name in new if name not in old]
        found += [_change(name, old[name], new[name]) for name in old if name in new and _differ(old[name], new[name])]
        if [name for name in old if name in new] != [name for name in new if name in old]:
            found.append(f"the files of {split} are read in another order")
    found += [
        f"the weight of {phase} is {after.weights[phase]:g}, not {before.weights[phase]:g}"
        for phase in before.weights
        if after.weights.get(phase, before.weights[phase]) != before.weights[phase]
    ]
    found += [
        f"the id that ends a document{' of ' + phase if phase else ''} is {after.ends[phase]}, not {end}"
        for phase, end in before.ends.items()
        if after.ends.get(phase, end) != end
    ]
    if before.tokenizer != after.tokenizer:
        found.append(f"{TOKENIZER} {'has changed' if before.tokenizer and after.tokenizer else 'is new or missing'}")
    more = f" and {len(found) - _NAMED} more differences" if len(found) > _NAMED else ""
    return ", ".join(found[:_NAMED]) + more


def _differ(old: ShardPrint, new: ShardPrint) -> bool:
    """Whether two shards are not the same, as far as is known: of more or fewer shards other blocks are hashed."""
    if old.blocks != new.blocks:
        new = replace(new, blocks=old.blocks, sampled=old.sampled)
    return old != new


def _change(name: str, old: ShardPrint, new: ShardPrint) -> str:
    if old.tokens != new.tokens:
        return f"{name} has {new.tokens} tokens, not {old.tokens}"
    if old.bytes != new.bytes or old.dtype != new.dtype:
        return f"{name} has another format"
    return f"{name} has other content"


def _prints_of(folder: Path, shards: tuple[Shard, ...], hashes: Mapping[str, Any]) -> tuple[ShardPrint, ...]:
    blocks = max(_LEAST_BLOCKS, min(_MOST_BLOCKS, _ALL_BLOCKS // max(len(shards), 1)))
    return tuple(_print_of(folder, shard, blocks, hashes) for shard in shards)


def _print_of(folder: Path, shard: Shard, blocks: int, hashes: Mapping[str, Any]) -> ShardPrint:
    name = shard.path.relative_to(folder).as_posix()
    try:
        size, sampled = _sample(shard.path, blocks)
    except OSError as error:
        raise UserError(f"{shard.path}: cannot be read ({error.strerror}): check its permissions") from None
    sha256 = hashes.get(name)
    recorded = sha256 if isinstance(sha256, str) else ""
    return ShardPrint(name, size, shard.tokens, shard.dtype.name, shard.header, blocks, sampled, recorded)


def _sample(path: Path, blocks: int) -> tuple[int, str]:
    """Return the size of a file and a hash of so many blocks spread over it, the first and the last among them."""
    sampled = hashlib.blake2b(digest_size=16)
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size <= blocks * BLOCK_BYTES:
            sampled.update(file.read())
        else:
            for block in range(blocks):
                sampled.update(os.pread(file.fileno(), BLOCK_BYTES, block * (size - BLOCK_BYTES) // (blocks - 1)))
    return size, sampled.hexdigest()


def _tokenizer_hash(folder: Path) -> str:
    try:
        with open_regular(folder / TOKENIZER) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _shard_print(content: Any) -> ShardPrint:
    shard = ShardPrint(**content)
    counts, texts = (
        (shard.bytes, shard.tokens, shard.header, shard.blocks - 2),
        (shard.name, shard.sampled, shard.sha256),
    )
    if not all(type(count) is int and count >= 0 for count in counts) or shard.dtype not in DTYPES:
        raise ValueError
    any(map(_text, texts))
    check_below("name", shard.name)
    return shard


def _weight(value: Any) -> float:
    if type(value) not in (int, float) or not value > 0:
        raise ValueError
    return float(value)


def _end(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value
