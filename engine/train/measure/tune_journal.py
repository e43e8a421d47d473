"""Keeps what a tune has measured so far, so that one that was interrupted goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import msgspec

from engine.host.private_dirs import make_private_dir
from engine.host.struct_json import read_struct, write_struct
from engine.host.version import VERSION
from engine.memory.hardware import Hardware
from engine.memory.search.combinations import Combination, possible
from engine.memory.search.micro import micro_divisors, with_micro
from engine.memory.search.search import Candidate, Search
from profiles.errors import UserError
from profiles.spec import RunSpec


class Measurement(msgspec.Struct, frozen=True):
    """One way to run a spec, measured: tokens per second and peak bytes; or ``error``, one line."""

    tok_s: float = 0.0
    device_peak: int | None = None
    host_peak: int | None = None
    error: str = ""


class Pair(msgspec.Struct, frozen=True):
    """Two ways measured one directly after the other. ``best`` is the key of the second."""

    best: str
    own: Measurement
    other: Measurement

    @property
    def ratio(self) -> float:
        """Tokens per second of the second, relative to the first; 0 where one of them failed."""
        return self.other.tok_s / self.own.tok_s if self.own.tok_s else 0.0


class PlannedWay(msgspec.Struct, frozen=True):
    """One way to be measured."""

    combination: Combination
    micro: int


class Measured(msgspec.Struct):
    """The content of the file: the ways to measure, measurements by the key of the way, and pairs in their order."""

    planned: list[PlannedWay] = []
    ways: dict[str, Measurement] = {}
    pairs: list[Pair] = []


class TuneJournal:
    """The measurements of one spec on one machine, in a file of ``$MLA_TUI_HOME/tune`` until ``remove``."""

    def __init__(self, home: Path, spec: RunSpec, hardware: Hardware, work: str) -> None:
        """``work``: how each way is measured; other work is another journal."""
        identity = json.dumps([spec.to_dict(), hardware.name, hardware.device_total, work, VERSION])
        name = hashlib.sha256(identity.encode()).hexdigest()[:16]
        self.path = home / "tune" / f"{name}.json"
        self.measured = read_struct(self.path, Measured) or Measured()

    def ways(self, spec: RunSpec, search: Search) -> list[Candidate]:
        """Return the ways that were begun, in their order; empty where nothing was measured, or no way is possible.

        What was measured has changed the predictions since: to choose again would give other ways.
        """
        if not self.measured.ways:
            return []
        combinations, micros = possible(spec, search.hardware), micro_divisors(spec)
        planned = self.measured.planned
        if not all(one.combination in combinations and one.micro in micros for one in planned):
            return []  # damaged
        return [search.candidate(with_micro(spec, one.micro), one.combination) for one in planned]

    def begin(self, ways: Sequence[Candidate]) -> None:
        """Keep which ways are measured. Raises ``UserError`` where it cannot be written."""
        self.measured.planned = [PlannedWay(way.combination, way.spec.batch.micro) for way in ways]
        self._write()

    def add(self, key: str, found: Measurement) -> None:
        """Raises ``UserError`` where it cannot be written."""
        self.measured.ways[key] = found
        self._write()

    def add_pair(self, pair: Pair) -> None:
        """Raises ``UserError`` where it cannot be written."""
        self.measured.pairs.append(pair)
        self._write()

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)

    def _write(self) -> None:
        try:
            make_private_dir(self.path.parent, parents=True)
            write_struct(self.path, self.measured)
        except OSError as error:
            raise UserError(f"{self.path.parent}: {error.strerror}; make it writable, or set MLA_TUI_HOME") from None
