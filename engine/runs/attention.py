"""Knows what a run waits for that only a user can put right: its checkpoints, or the data it has read so far."""

from __future__ import annotations

import os
from pathlib import Path

from engine.checkpoints.resume_source import missing_source
from engine.events.commands import Command, CommandReader
from engine.events.run_dir import RunDir
from profiles.spec import RunSpec

Signature = list[tuple[str, int, int, int]]


class Attention:
    """A trainer that finds other data than it should exits; it is started again once something has changed there."""

    def __init__(self, run: RunDir, spec: RunSpec) -> None:
        self._run = run
        self._folder = Path(spec.data.root) / spec.data.phase
        self._refusal: tuple[str, Signature] | None = None  # why, and the files that were there
        self._commands: CommandReader | None = None

    def refuse_data(self, why: str) -> None:
        """Take in that the trainer has refused the data as it is."""
        self._refusal = why, _signature(self._folder)

    def reason(self, saved: str | None) -> str | None:
        """Return why the run cannot continue now, None where it can. ``saved``: its newest checkpoint, by its log."""
        if missing := missing_source(self._run, saved):
            return f"{missing}; put it back and the run continues"
        if self._refusal and self._refusal[1] == _signature(self._folder):
            return self._refusal[0]
        return None

    def resume_requests(self) -> list[Command]:
        """Return the new ``resume`` commands. One that accepts the data, or comes while the run waits, is a new try."""
        waits = self._commands is not None
        self._commands = self._commands or CommandReader(self._run.commands_path, self._run.log_path)
        requests = [command for command in self._commands.poll() if command.method == "resume"]
        if any(waits or command.params.get("data_changed") is True for command in requests):
            self._refusal = None
        return requests

    def close(self) -> None:
        """Forget the commands read: the trainer reads and acknowledges them from here on."""
        self._commands = None


def _signature(folder: Path) -> Signature:
    """Return name, size, time of change and inode of every file below ``folder``; costs one ``stat`` a file."""
    found: Signature = []
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            try:
                status = os.stat(path)
            except OSError:
                continue
            found.append((path, status.st_size, status.st_mtime_ns, status.st_ino))
    return sorted(found)
