"""A run to which all kinds of things happen, each at a chosen moment: begun again after each death until its end.

The loop, its checkpoints, its log and its commands are the real ones, within the test's process. A moment is a call of
the backend, a look for commands, or either side of a record that decides something: between two of these nothing that
outlives a process changes, but for the files of a checkpoint, whose calls have a happening of their own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.checkpoints import checkpoint
from engine.events.commands import Command, append
from engine.events.log import LogWriter, Record, read_all
from engine.events.run_dir import RunDir
from engine.host.process import Lock
from engine.train import loop
from engine.train.backends.backend import Batch
from engine.train.backends.build import build_backend
from engine.train.backends.ranks import SingleRank
from engine.train.edit_history import RestartRequested
from engine.train.loop import Trainer
from engine.train.oom import micro_fitter
from engine.train.run_reporter import RunReporter
from profiles.errors import UserError
from profiles.spec import RunSpec
from tests.unit.train.whole_runs import Failing, operations

SITES = ("accumulate", "optimizer_step", "evaluate")
TELLING = ("step", "edit", "oom", "val")
CHANGING = ("open", "write", "fsync", "rename", "mkdir", "unlink", "rmdir")


class Killed(BaseException):
    """The end of a process, as far as one process can play that: nothing is written or tidied up behind it."""


@dataclass(frozen=True)
class Ask:
    """Somebody gives a command."""

    after: int  # moments since the happening before this one; so in all of these
    method: str
    params: dict[str, Any]


@dataclass(frozen=True)
class Kill:
    """SIGKILL; ``kernel``: for want of host memory, which the supervisor writes down."""

    after: int
    kernel: bool


@dataclass(frozen=True)
class KillSaving:
    """SIGKILL at call ``call`` of those by which a checkpoint reaches the disk, ``beside`` moments after its begin."""

    after: int
    call: int
    beside: int


@dataclass(frozen=True)
class Want:
    """The next call of ``site`` runs out of memory, at ``share`` of its operations."""

    after: int
    site: str
    share: float


@dataclass(frozen=True)
class Shutdown:
    """SIGTERM: the run saves and ends, and is resumed."""

    after: int


Happening = Ask | Kill | KillSaving | Want | Shutdown


class Run:
    """One run of ``spec`` below ``folder``. ``fed`` are the sequences of each step as its last attempt took them."""

    def __init__(
        self, spec: RunSpec, folder: Path, happenings: list[Happening], sizes: dict[str, int], past: list[Record]
    ) -> None:
        """``sizes``: operations of a call of each of ``SITES``; ``past``: edits that are in the log from the start."""
        folder.mkdir()
        self.spec, self.out, self.run_dir = spec, folder / "out", RunDir(folder)
        self.fed: dict[int, Batch] = {}
        self._happenings, self._sizes = happenings, sizes
        self._waited = self._capacity = 0
        self._wants: dict[str, float] = {}
        self._paused = self._dead = self._host_was_full = False
        self._doom: KillSaving | None = None  # of the next save
        self._doomed: KillSaving | None = None  # of the present one
        self._left: int | None = None  # moments until the writer that is doomed may go on to its end
        self._go = threading.Event()
        for record in past:
            self.write(**record)

    def write(self, kind: str, attempt: int = 0, **fields: Any) -> None:
        log = LogWriter(self.run_dir.log_path, attempt)
        log.write(kind, **fields)
        log.close()

    def records(self) -> list[Record]:
        return [record for _, record in read_all(self.run_dir.log_path)]

    def last(self, kind: str) -> dict[int, Record]:
        """The records of ``kind`` by step, as a reader sees them: where a restart repeats steps, the latest counts."""
        found: dict[int, Record] = {}
        for record in self.records():
            if record["kind"] == "start":
                found = {step: told for step, told in found.items() if step <= (record["resumed_from"] or 0)}
            elif record["kind"] == kind:
                found[record["step"]] = record
        return found

    def live(self) -> None:
        """From the first attempt to the run's end."""
        supervisor = Lock(self.run_dir.supervisor_lock)  # held: a trainer revives one that is not there
        assert supervisor.acquire()
        try:
            with _watched(self._writes):
                attempts = len(self._happenings) + 4
                assert any(self._attempt(n) for n in range(1, attempts)), "it never came to its end"
        finally:
            supervisor.release()

    def _attempt(self, number: int) -> bool:
        """Whether it was the last one."""
        self._dead = self._paused = False
        told = _Reporter(self, number)
        backend = _Backend(self, build_backend(self.spec, SingleRank()))
        trainer = self._trainer = Trainer(self.spec, backend, told, self.out, supervised=True)
        begin, settle = trainer.saver.start_save, trainer.saver.wait

        def begun(*args: Any, **named: Any) -> None:
            settled()
            if self._doom is not None:
                self._doomed, self._doom = self._doom, None
                self._left = self._doomed.beside
                self._go.clear()
            begin(*args, **named)

        def settled() -> str:
            if trainer.saver.pending:
                self._release_writer()
            return settle()

        trainer.saver.start_save, trainer.saver.wait = begun, settled  # type: ignore[method-assign]
        try:
            phase = trainer.run(checkpoint.newest_intact(self.out, _damaged) if self.out.exists() else None, None)
        except (Killed, RestartRequested):
            return False
        except UserError as error:  # with one sequence at once there is no smaller: somebody resumes it
            assert "the smallest there is" in str(error) or "validating" in str(error), error
            return False
        finally:
            told.close()
            if self._host_was_full:
                self._host_was_full = False
                self.write("oom", number, where="host", wanted=None, parts={}, action="restart")
        return phase == "finished" or 0 < trainer.step == trainer.spec.train.stop_step

    # -- moments

    def moment(self) -> None:
        """Let happen what is due by now."""
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                self._release_writer()
                _join_writer()
        if self._dead:
            raise Killed
        self._waited += 1
        while self._happenings and self._waited >= self._happenings[0].after:
            self._waited = 0
            self._happen(self._happenings.pop(0))

    def _happen(self, now: Happening) -> None:
        if isinstance(now, Ask):
            append(self.run_dir.commands_path, now.method, now.params, "test")
        elif isinstance(now, Want):
            self._wants[now.site] = now.share
        elif isinstance(now, KillSaving):
            self._doom = now
        elif isinstance(now, Shutdown):
            self._trainer.commands.put(Command("SIGTERM", "stop", {"save": True}, "SIGTERM"))
        else:
            self._release_writer()
            _join_writer()  # how far it has come is chosen by KillSaving, not by chance
            self._dead, self._host_was_full = True, now.kernel
            raise Killed

    def idle(self) -> None:
        """A look for commands: whoever is held with nothing to come is let go on."""
        self.moment()
        if self._paused and not self._happenings:
            self._paused = False
            append(self.run_dir.commands_path, "resume", {}, "test")

    def told(self, kind: str, fields: dict[str, Any]) -> None:
        self._paused = fields["phase"] == "paused" if kind == "state" else self._paused

    def call(self, site: str, body: Callable[[], Any]) -> Any:
        """Call the backend, which may run out of memory within."""
        self.moment()
        share = self._wants.pop(site, None)
        if share is None:
            return body()
        with Failing(max(1, round(share * self._sizes[site]))):
            return body()

    def more_room(self) -> int:
        """Bytes: more at each look, so that the run grows again."""
        self._capacity += 1
        return (64 << 30) + self._capacity

    def fed_with(self, rows: list[Batch]) -> None:
        self.fed[self._trainer.step + 1] = np.concatenate(rows)

    # -- the thread that writes a checkpoint

    def _release_writer(self) -> None:
        self._left = None
        self._go.set()

    def _writes(self, calls: int) -> None:
        """The writer is about to make its call number ``calls``."""
        if self._doomed is not None and calls == self._doomed.call:
            self._doomed = None
            assert self._go.wait(30), "nobody waits for the checkpoint"
            self._dead = True
        if self._dead:
            raise Killed


class _Backend:
    """A backend, each call of which is a moment of ``run``."""

    def __init__(self, run: Run, backend: Any) -> None:
        vars(self).update(_run=run, _backend=backend, _rows=[])

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._backend, name, value)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def accumulate(self, batch: Batch, step_tokens: int) -> None:
        self._run.call("accumulate", lambda: self._backend.accumulate(batch, step_tokens))
        self._rows.append(batch)

    def window_totals(self) -> Any:
        self._run.moment()
        return self._backend.window_totals()

    def optimizer_step(self, lr: float, clip: float) -> None:
        self._run.call("optimizer_step", lambda: self._backend.optimizer_step(lr, clip))
        self._run.fed_with(self._rows)
        self._rows.clear()

    def discard_window(self) -> None:
        self._rows.clear()
        self._backend.discard_window()

    def evaluate(self, batch: Batch) -> Any:
        return self._run.call("evaluate", lambda: self._backend.evaluate(batch))

    def capacity(self) -> int:
        return self._run.more_room()  # type: ignore[no-any-return]


class _Reporter(RunReporter):
    def __init__(self, run: Run, attempt: int) -> None:
        super().__init__(run.run_dir, attempt)
        self._run = run

    def record(self, kind: str, **fields: Any) -> None:
        decides = kind in TELLING or (kind == "state" and "id" in fields)
        if decides or self._run._dead:
            self._run.moment()
        super().record(kind, **fields)
        self._run.told(kind, fields)
        if decides:
            self._run.moment()

    def progress(self, **fields: Any) -> None:
        pass

    def commands(self) -> list[Command]:
        self._run.idle()
        return super().commands()


@contextmanager
def _watched(writes: Callable[[int], None]) -> Iterator[None]:
    """``writes`` hears of each call of a checkpoint's writer that changes the disk, before it is made."""
    real = {name: getattr(os, name) for name in CHANGING}
    calls: dict[threading.Thread, int] = {}

    def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            thread = threading.current_thread()
            if thread.name == "checkpoint":
                calls[thread] = calls.get(thread, 0) + 1
                writes(calls[thread])
            return function(*args, **options)

        return call

    patience, quiet = loop.PAUSE_POLL, micro_fitter.GROW_AFTER
    try:
        loop.PAUSE_POLL, micro_fitter.GROW_AFTER = 0.0, 2
        for name, function in real.items():
            setattr(os, name, wrapped(function))
        yield
    finally:
        loop.PAUSE_POLL, micro_fitter.GROW_AFTER = patience, quiet
        for name, function in real.items():
            setattr(os, name, function)


def _join_writer() -> None:
    for thread in threading.enumerate():
        if thread.name == "checkpoint":
            thread.join()


def _damaged(text: str) -> None:
    raise AssertionError(text)


def sizes(spec: RunSpec) -> dict[str, int]:
    """Operations of one call of each of ``SITES``."""
    return {site: operations(spec, site) for site in SITES}
