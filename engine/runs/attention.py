"""Waits for what only a user can put right: the checkpoints of a run, the data it has read so far, a full disk."""

from __future__ import annotations

import itertools
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

from data.splits import phases_of
from engine.checkpoints.resume_source import missing_source
from engine.events.commands import CommandReader
from engine.events.phases import DATA_CHANGED, NEEDS_ATTENTION, NOT_ON_ALL_RANKS, THE_DATA_HAS_CHANGED
from engine.events.requests import ResumeRequest
from engine.events.run_dir import RunDir
from engine.events.types import Event, State
from engine.host.disk_space import check_space
from profiles.spec import RunSpec

INTERVAL = 1.0  # seconds between checks
Stopped = Callable[[float, str], Awaitable[bool]]
Signature = list[tuple[str, int, int, int]]


class Lack(NamedTuple):
    """What a run cannot go on without. ``waits`` says how it goes on by itself, ``once`` when a stopped run can."""

    what: str
    waits: str
    once: str


class Attention:
    """A trainer that finds other data than it should exits; it is started again once something has changed there."""

    def __init__(self, run: RunDir, spec: RunSpec) -> None:
        self._run = run
        self._folders = list(phases_of(spec).values())
        self._refusal: tuple[str, Signature] | None = None  # why, and the files that were there

    def refuse_data(self, why: str) -> None:
        """Take in that the trainer has refused the data as it is."""
        self._refusal = why, _signature(self._folders)

    async def wait(
        self,
        saved: Callable[[], str | None],
        log: Callable[[Event], None],
        stopped: Callable[[float, str], Awaitable[bool]],
    ) -> bool:
        """Wait until the checkpoints, the data and space for the log are there; False where a stop came first.

        ``saved`` returns the newest checkpoint that the run has logged, ``stopped`` waits some seconds for a stop, and
        ``log`` writes a record.
        """
        if self._lack(saved()) is None:
            return True
        commands = CommandReader(self._run.commands_path, self._run.log_path)
        logged, waits = "", False
        while True:
            requests = [command for command in commands.poll() if isinstance(command.request, ResumeRequest)]
            if any(waits or command.request == ResumeRequest(data_changed=True) for command in requests):
                self._refusal = None  # a new try; the trainer reads and acknowledges the request
            if (lack := self._lack(saved())) is None:
                return True
            reason = f"{lack.what}; {lack.waits}"
            answered: list[str | None] = [command.id for command in requests]
            for id in answered or [None] * (reason != logged):
                log(State(phase=NEEDS_ATTENTION, reason=reason, id=id))
            logged, waits = reason, True
            # A stopped run does not go on by itself, whatever comes back.
            launch = f"continue {lack.once} with: mla-tui launch --resume {self._run.id}"
            way_out = launch if saved() else f"launch it again {lack.once}"
            if await stopped(INTERVAL, f"{lack.what}; {way_out}"):
                return False

    def _lack(self, saved: str | None) -> Lack | None:
        """Return why the run cannot continue now, None where it can."""
        try:
            check_space(self._run.path)
        except FileNotFoundError:  # the directory was deleted, which is not for a user to put right
            pass
        except OSError as error:
            what = f"{self._run.path}: {error.strerror}"
            return Lack(what, "the run continues when it can write its log there", "once it can be written")
        if missing := missing_source(self._run, saved):
            return Lack(missing, "put it back and the run continues", "once it is back")
        if self._refusal and self._refusal[1] == _signature(self._folders):
            return self._refused(self._refusal[0])
        return None

    def _refused(self, why: str) -> Lack:
        if why.startswith(NOT_ON_ALL_RANKS):  # only a rank on that host can tell
            return Lack(why, f"then go on with: mla-tui resume {self._run.id}", "once every host has it")
        if not why.startswith(THE_DATA_HAS_CHANGED):
            return Lack(why, "the run continues when it is as it was", "once it is as it was")
        as_it_is = f"continue with the data as it is: mla-tui resume {self._run.id} {DATA_CHANGED}"
        waits = f"restore the data and the run continues, or {as_it_is}"
        return Lack(why, waits, f"once the data is restored, or as it is with {DATA_CHANGED},")


def _signature(folders: list[Path]) -> Signature:
    """Return name, size, time of change and inode of every file below ``folders``; costs one ``stat`` a file."""
    found: Signature = []
    for parent, _, names in itertools.chain.from_iterable(map(os.walk, folders)):
        for name in names:
            path = os.path.join(parent, name)
            try:
                status = os.stat(path)
            except OSError:
                continue
            found.append((path, status.st_size, status.st_mtime_ns, status.st_ino))
    return sorted(found)
