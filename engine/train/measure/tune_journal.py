"""Keeps what a tune has measured so far, so that one that was interrupted goes on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import msgspec

from engine.host.private_dirs import make_private_dir
from engine.host.struct_json import read_struct, write_struct
from engine.host.version import package_version
from engine.memory.hardware import Hardware
from profiles.errors import UserError
from profiles.spec import RunSpec


class Measurement(msgspec.Struct, frozen=True):
    """One way to run a spec, measured: tokens per second and peak bytes; or ``error``, one line."""

    tok_s: float = 0.0
    device_peak: int | None = None
    host_peak: int | None = None
    error: str = ""


class Pair(msgspec.Struct, frozen=True):
    """Two ways measured one directly after the other. ``fastest`` is the key of the second."""

    fastest: str
    own: Measurement
    other: Measurement

    @property
    def ratio(self) -> float:
        """Tokens per second of the second, relative to the first; 0 where one of them failed."""
        return self.other.tok_s / self.own.tok_s if self.own.tok_s else 0.0


class Measured(msgspec.Struct):
    """The content of the file: measurements by the key of the way, and pairs in their order."""

    ways: dict[str, Measurement] = {}
    pairs: list[Pair] = []


class TuneJournal:
    """The measurements of one spec on one machine, in a file of ``$MLA_TUI_HOME/tune`` until ``remove``."""

    def __init__(self, home: Path, spec: RunSpec, hardware: Hardware, work: str) -> None:
        """``work``: how each way is measured; other work is another journal."""
        identity = json.dumps([spec.to_dict(), hardware.name, hardware.device_total, work, package_version()])
        name = hashlib.sha256(identity.encode()).hexdigest()[:16]
        self.path = home / "tune" / f"{name}.json"
        self.measured = read_struct(self.path, Measured) or Measured()

    def add(self, key: str, found: Measurement) -> None:
        """Raises ``UserError`` where it cannot be written."""
        self.measured.ways[key] = found
        self._write()

    def add_pair(self, pair: Pair) -> None:
        """Raises ``UserError`` where it cannot be written."""
        self.measured.pairs.append(pair)
        self._write()

    def check(self) -> None:
        """Raise ``UserError`` where nothing could be kept."""
        self._write()

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)

    def _write(self) -> None:
        try:
            make_private_dir(self.path.parent, parents=True)
            write_struct(self.path, self.measured)
        except OSError as error:
            raise UserError(f"{self.path.parent}: {error.strerror}; make it writable, or set MLA_TUI_HOME") from None
