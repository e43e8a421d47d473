"""Starts ``mla-tui data pack`` so that it outlives the app, follows its output, and lists what was packed.

A pack that the app has started leaves two hidden files beside its phase: its output, and which process it is.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec import Struct

from data.pack.request import state_folder
from engine.host.process import (
    ProcessIdentity,
    boot_id,
    is_alive,
    is_locked,
    is_visible,
    process_identity,
    spawn_detached,
)
from engine.host.programs import COMMAND_LINE, python_module
from engine.host.struct_json import read_intact, write_struct
from profiles.errors import UserError
from profiles.reader import Table
from profiles.reader import read_json as read_foreign
from tui.app.state.console_end import read_end

_PROGRESS = re.compile(r"\d+%  ")  # a line of progress begins so


@dataclass(frozen=True, slots=True)
class Packed:
    """A phase that a run can read: the ids of its vocabulary, and the tokens of its train split."""

    phase: str
    vocab_size: int
    tokens: int


def packed_phases(root: Path) -> list[Packed]:
    """Return the phases below ``root`` whose ``dataset.json`` says what they hold, by name."""
    found = []
    for path in sorted(root.glob("[!.]*/dataset.json")):
        with contextlib.suppress(OSError, UserError):
            manifest = Table(read_foreign(path), str(path))
            sizes = manifest.integer("vocab_size"), manifest.table("splits").table("train").integer("tokens")
            found.append(Packed(path.parent.name, *sizes))
    return found


def last_phase(root: Path) -> str | None:
    """Return the phase below ``root`` that the app packed last, or None."""
    found = [path for path in root.glob(".*-pack.json") if path.is_file()]
    newest = max(found, key=lambda path: path.stat().st_mtime, default=None)
    return newest.name.removeprefix(".").removesuffix("-pack.json") if newest else None


class _Started(Struct, frozen=True):
    """What is written of a pack when it is started."""

    process: ProcessIdentity | None = None
    command: str = ""


class Pack:
    """The pack of ``phase`` below ``root`` that an app has started, now or earlier."""

    def __init__(self, root: Path, phase: str) -> None:
        self._root = root
        self._output = root / f".{phase}-pack.log"
        self._process = root / f".{phase}-pack.json"
        self._state = state_folder(root, phase)

    def start(self, arguments: Sequence[str]) -> None:
        """Run ``mla-tui`` with ``arguments`` in its own session. Raise ``OSError``."""
        self._root.mkdir(parents=True, exist_ok=True)
        self._output.unlink(missing_ok=True)
        child = spawn_detached(python_module(COMMAND_LINE, *arguments), self._output, Path.cwd())
        command = shlex.join(["mla-tui", *arguments])
        write_struct(self._process, _Started(process_identity(child.pid), command))

    def stop(self) -> None:
        """Ask it to end; the same command goes on from there. Raise ``UserError`` where it runs elsewhere."""
        if elsewhere := self.elsewhere():
            raise UserError(f"the pack runs {elsewhere}: stop it there")
        process = self._started.process
        if process is not None and is_alive(process):
            with contextlib.suppress(OSError):
                os.kill(process.pid, signal.SIGTERM)

    def is_alive(self) -> bool:
        return is_alive(self._started.process) or bool(self.elsewhere())

    def elsewhere(self) -> str:
        """Return in which other container or machine it runs, in words; "" for one of this container, or ended.

        Its pid counts for nothing here; the lock of its state folder alone tells.
        """
        process = self._started.process
        if process is None or not is_locked(self._state):
            return ""
        if process.boot not in (None, boot_id()):
            return f"on another machine (process {process.pid} there)"
        return "" if is_visible(process) else f"in another container (process {process.pid} there)"

    @property
    def command(self) -> str:
        return self._started.command

    @property
    def _started(self) -> _Started:
        return read_intact(self._process, _Started) or _Started()

    def output(self) -> str:
        """Return what it has printed, of its progress only the last line."""
        try:
            lines = read_end(self._output)[0].splitlines()
        except OSError as error:
            return f"{self._output}: cannot be read: {error.strerror or error}"
        last = len(lines) - 1
        return "\n".join(line for at, line in enumerate(lines) if at == last or not _PROGRESS.match(line))
