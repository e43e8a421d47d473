"""Keeps how far a pack is, so that the same command goes on after it was killed at any moment."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.new_folder import missing_above, remove_empty
from data.pack.pipeline import Position
from data.pack.shard_writer import ShardState
from data.pack.split_rule import SPLITS
from data.pack.tally import Tally
from profiles.errors import UserError
from profiles.reader import read_json

FORMAT = 3
COUNTED = ("files", "bytes", "documents")  # of each argument
_COUNTS = ("duplicates", "near_duplicates", "faults", "read", "sources")


@dataclass
class Progress:
    """What of a pack is merged and durable: everything before ``position``, and all sizes by then.

    ``files`` and ``faults`` count source files, ``sources`` is the length of their list in bytes.
    """

    position: Position = field(default_factory=lambda: Position(0, 0))
    shards: dict[str, ShardState] = field(default_factory=lambda: {split: ShardState() for split in SPLITS})
    skipped: Tally = field(default_factory=Tally)
    duplicates: int = 0
    near_duplicates: int = 0
    faults: int = 0
    read: int = 0
    sources: int = 0
    given: list[dict[str, int]] = field(default_factory=list)
    complete: bool = False

    @property
    def documents(self) -> int:
        return sum(shard.documents for shard in self.shards.values())

    @property
    def tokens(self) -> int:
        return sum(shard.tokens for shard in self.shards.values())

    def to_dict(self) -> dict[str, Any]:
        return {
            "position": list(self.position),
            "shards": {split: state.to_dict() for split, state in self.shards.items()},
            "skipped": self.skipped.to_dict(),
            **{key: getattr(self, key) for key in (*_COUNTS, "given", "complete")},
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any], source: Path) -> Progress:
        """Read what ``to_dict`` returned from ``source``. Raise ``UserError`` where it is damaged."""
        try:
            return cls(
                **{
                    **content,
                    "position": Position(*map(_count, content["position"])),
                    "shards": {split: _shard_state(content["shards"][split]) for split in SPLITS},
                    "skipped": Tally(content["skipped"]),
                    "given": [{key: _count(each[key]) for key in COUNTED} for each in content["given"]],
                    **{key: _count(content[key]) for key in _COUNTS},
                }
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            raise UserError(f"{source}: is damaged: remove its folder to begin again") from None


def _shard_state(content: dict[str, Any]) -> ShardState:
    counts = {key: _count(content[key]) for key in ("open", "tokens", "documents", "bytes")}
    return ShardState(**counts, closed={str(name): str(sha256) for name, sha256 in content["closed"].items()})


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError
    return value


class StateFolder:
    """The hidden folder of an unfinished pack. Whoever has it open holds its lock."""

    def __init__(self, path: Path) -> None:
        """Make the folder if needed and lock it. Raise ``UserError`` if another process packs there."""
        self.path = path
        self._made = missing_above(path)
        while True:
            try:
                path.mkdir(parents=True, exist_ok=True)
            except OSError:
                remove_empty(self._made)
                raise
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.stat(path), os.fstat(self._fd)):
                    return
            except FileNotFoundError:
                pass  # another process has just finished, and removed it
            except BlockingIOError:
                os.close(self._fd)
                raise UserError(
                    f"{path}: another process packs there now: wait for it, or choose another --phase"
                ) from None
            os.close(self._fd)

    def clear(self, last: Sequence[str]) -> None:
        """Remove the folder: the files ``last`` after everything else and in this order, so that what is left tells
        how far this came where it is interrupted."""
        for path in self.path.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in last:
                path.unlink()
        for name in last:
            (self.path / name).unlink(missing_ok=True)
        self.path.rmdir()

    def discard(self) -> None:
        """Remove the folder, and those above it that were made for it and hold nothing else."""
        shutil.rmtree(self.path, ignore_errors=True)
        remove_empty(self._made)

    def close(self) -> None:
        os.close(self._fd)

    def read(self, name: str) -> dict[str, Any] | None:
        """Return what ``write`` wrote, or None if it has not. Raise ``UserError``."""
        remedy = f"remove {self.path} to begin again"
        try:
            content = read_json(self.path / name, remedy=remedy)
        except FileNotFoundError:
            return None
        if content.pop("format", None) != FORMAT:
            raise UserError(f"{self.path}: was begun by another version: {remedy}")
        return content

    def write(self, name: str, content: dict[str, Any]) -> None:
        write_durable(self.path / name, json.dumps({"format": FORMAT, **content}).encode())


def write_durable(path: Path, content: bytes) -> None:
    """Write a file so that after a crash it is the old one or the new one. Raise ``OSError``."""
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, path)
