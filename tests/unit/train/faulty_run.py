"""Runs a small training run in which faults and commands are injected at chosen points, and restarts it until it ends.

The loop, its checkpoints, its log and its commands are the real ones, within the test's process. An injection point is
a call of the backend, a poll for commands, or the time just before or after a record that changes what a restart does.
Between two injection points nothing on disk changes except the files of a checkpoint, and ``KillDuringSave`` covers
those.
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
from engine.events.commands import append
from engine.events.log import LogWriter
from engine.events.requests import ResumeRequest, StopRequest, TrainerRequest
from engine.events.run_dir import RunDir
from engine.events.types import Command, Edit, Event, Oom, Progress, State, Step, Val
from engine.host.process import Lock
from engine.train import loop
from engine.train.backends.backend import Batch
from engine.train.backends.build import build_backend
from engine.train.backends.ranks import SingleRank
from engine.train.edit_history import RestartRequested
from engine.train.loop import Trainer
from engine.train.oom import micro_fitter
from engine.train.run_reporter import RunReporter
from engine.train.run_state import RunState
from profiles.errors import UserError
from profiles.spec import RunSpec
from tests.events import records
from tests.unit.train.tiny_runs import OomAtOperation, count_operations

OOM_METHODS = ("accumulate", "optimizer_step", "evaluate")  # of the backend
RESTART_KINDS = (Step, Edit, Oom, Val)  # records that change what a restart does
DISK_CALLS = ("open", "write", "fsync", "rename", "mkdir", "unlink", "rmdir")  # of os


class Killed(BaseException):
    """Ends the simulated process: nothing is written or cleaned up after it."""


@dataclass(frozen=True)
class SendCommand:
    """A user sends a command."""

    after: int  # injection points since the previous injection, here and in every other class
    request: TrainerRequest


@dataclass(frozen=True)
class Kill:
    """SIGKILL; ``oom_killer``: by the kernel, out of host memory, which the supervisor then writes to the log."""

    after: int
    oom_killer: bool


@dataclass(frozen=True)
class KillDuringSave:
    """SIGKILL in the next save, while its writer waits just before disk call number ``call``.

    The training thread passes ``overlap`` injection points between the start of the save and the kill.
    """

    after: int
    call: int
    overlap: int


@dataclass(frozen=True)
class RunOutOfMemory:
    """The next call of the backend's ``method`` runs out of memory, after ``fraction`` of its operations."""

    after: int
    method: str
    fraction: float


@dataclass(frozen=True)
class Shutdown:
    """SIGTERM: the run saves and exits, and is resumed."""

    after: int


Injection = SendCommand | Kill | KillDuringSave | RunOutOfMemory | Shutdown


class FaultyRun:
    """A run of ``spec`` below ``folder``. ``sequences`` are those of each step, as its last attempt trained on them."""

    def __init__(
        self,
        spec: RunSpec,
        folder: Path,
        injections: list[Injection],
        operations: dict[str, int],
        edits: list[Edit],
    ) -> None:
        """``operations``: per call of each of ``OOM_METHODS``; ``edits``: records in the log from the start."""
        folder.mkdir()
        self.spec, self.out, self.run_dir = spec, folder / "out", RunDir(folder)
        self.sequences: dict[int, Batch] = {}
        self.killed = False
        self._injections, self._operations = injections, operations
        self._points_passed = self._capacity_calls = 0  # points: since the last injection
        self._oom_fractions: dict[str, float] = {}
        self._paused = self._killed_by_oom_killer = False
        self._kill_in_next_save: KillDuringSave | None = None
        self._kill_in_this_save: KillDuringSave | None = None
        self._points_until_kill: int | None = None  # injection points; None: no writer waits to be killed
        self._writer_released = threading.Event()
        for edit in edits:
            self.write(edit)

    def write(self, event: Event, attempt: int = 0) -> None:
        log = LogWriter(self.run_dir.log_path, attempt)
        log.write(event)
        log.close()

    def records(self) -> list[dict[str, Any]]:
        return records(self.run_dir.log_path)

    def by_step(self, kind: str) -> dict[int, dict[str, Any]]:
        """Return the records of ``kind`` by step. Where a restart repeats steps, the latest record counts."""
        found: dict[int, dict[str, Any]] = {}
        for record in self.records():
            if record["kind"] == "start":
                found = {step: kept for step, kept in found.items() if step <= (record.get("resumed_from") or 0)}
            elif record["kind"] == kind:
                found[record["step"]] = record
        return found

    def run_to_end(self) -> None:
        """Run the first attempt and restart until the run has ended. Fail if it needs too many attempts."""
        supervisor = Lock(self.run_dir.supervisor_lock)  # held: a trainer starts a supervisor where none holds it
        assert supervisor.acquire()
        try:
            with _intercepted_disk_calls(self._before_disk_call):
                attempts = len(self._injections) + 4
                assert any(self._run_attempt(n) for n in range(1, attempts)), "the run did not end"
        finally:
            supervisor.release()

    def _run_attempt(self, number: int) -> bool:
        """Return whether it was the last one."""
        self.killed = self._paused = False
        reporter = _Reporter(self, number)
        backend = _Backend(self, build_backend(self.spec, SingleRank()))
        trainer = self._trainer = Trainer(RunState(self.spec), backend, reporter, self.out, run="run")
        real_start_save, real_wait = trainer.saver.start_save, trainer.saver.wait

        def start_save(*args: Any, **named: Any) -> None:
            wait()
            if self._kill_in_next_save is not None:
                self._kill_in_this_save, self._kill_in_next_save = self._kill_in_next_save, None
                self._points_until_kill = self._kill_in_this_save.overlap
                self._writer_released.clear()
            real_start_save(*args, **named)

        def wait() -> str:
            if trainer.saver.pending:
                self._release_writer()
            return real_wait()

        trainer.saver.start_save, trainer.saver.wait = start_save, wait  # type: ignore[method-assign]
        try:
            resume = checkpoint.newest_intact(self.out, _fail_on_damage) if self.out.exists() else None
            phase = trainer.run(resume, None)
        except (Killed, RestartRequested):
            return False
        except UserError as error:  # one sequence at a time cannot be split further: a user resumes the run
            assert "the smallest there is" in str(error) or "validating" in str(error), error
            return False
        finally:
            reporter.close()
            if self._killed_by_oom_killer:
                self._killed_by_oom_killer = False
                self.write(Oom(where="host", action="restart"), number)
        return phase == "finished" or 0 < trainer.step == trainer.spec.train.stop_step

    # -- injection points

    def injection_point(self) -> None:
        """Inject everything that is due."""
        if self._points_until_kill is not None:
            self._points_until_kill -= 1
            if self._points_until_kill < 0:
                self._release_writer()
                _join_writer()
        if self.killed:
            raise Killed
        self._points_passed += 1
        while self._injections and self._points_passed >= self._injections[0].after:
            self._points_passed = 0
            self._inject(self._injections.pop(0))

    def _inject(self, injection: Injection) -> None:
        if isinstance(injection, SendCommand):
            append(self.run_dir.commands_path, injection.request, "test")
        elif isinstance(injection, RunOutOfMemory):
            self._oom_fractions[injection.method] = injection.fraction
        elif isinstance(injection, KillDuringSave):
            self._kill_in_next_save = injection
        elif isinstance(injection, Shutdown):
            self._trainer.commands.put(Command(id="SIGTERM", request=StopRequest(), by="SIGTERM"))
        else:
            self._release_writer()
            _join_writer()  # KillDuringSave, not thread timing, decides how far an interrupted save gets
            self.killed, self._killed_by_oom_killer = True, injection.oom_killer
            raise Killed

    def on_poll(self) -> None:
        """Handle a poll for commands. A run that is paused with no injection left is resumed."""
        self.injection_point()
        if self._paused and not self._injections:
            self._paused = False
            append(self.run_dir.commands_path, ResumeRequest(), "test")

    def on_event(self, event: Event) -> None:
        self._paused = event.phase == "paused" if isinstance(event, State) else self._paused

    def call(self, method: str, body: Callable[[], Any]) -> Any:
        """Call the backend; an out-of-memory error may be raised in the call."""
        self.injection_point()
        fraction = self._oom_fractions.pop(method, None)
        if fraction is None:
            return body()
        with OomAtOperation(max(1, round(fraction * self._operations[method]))):
            return body()

    def growing_capacity(self) -> int:
        """Return bytes: more at each call, so that the run tries a larger micro-batch again."""
        self._capacity_calls += 1
        return (64 << 30) + self._capacity_calls

    def on_step(self, micro_batches: list[Batch]) -> None:
        self.sequences[self._trainer.step + 1] = np.concatenate(micro_batches)

    # -- the thread that writes a checkpoint

    def _release_writer(self) -> None:
        self._points_until_kill = None
        self._writer_released.set()

    def _before_disk_call(self, number: int) -> None:
        """Kill the process if the writer is about to make the disk call at which it is to be killed."""
        if self._kill_in_this_save is not None and number == self._kill_in_this_save.call:
            self._kill_in_this_save = None
            assert self._writer_released.wait(30), "the loop does not wait for the checkpoint"
            self.killed = True
        if self.killed:
            raise Killed


class _Backend:
    """A backend, each call of which is an injection point of ``run``."""

    def __init__(self, run: FaultyRun, backend: Any) -> None:
        vars(self).update(_run=run, _backend=backend, _micro_batches=[])

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._backend, name, value)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def accumulate(self, batch: Batch, step_tokens: int, last: bool) -> None:
        self._run.call("accumulate", lambda: self._backend.accumulate(batch, step_tokens, last))
        self._micro_batches.append(batch)

    def window_totals(self) -> Any:
        self._run.injection_point()
        return self._backend.window_totals()

    def optimizer_step(self, lr: float, clip: float) -> None:
        self._run.call("optimizer_step", lambda: self._backend.optimizer_step(lr, clip))
        self._run.on_step(self._micro_batches)
        self._micro_batches.clear()

    def discard_window(self) -> None:
        self._micro_batches.clear()
        self._backend.discard_window()

    def evaluate(self, batch: Batch) -> Any:
        return self._run.call("evaluate", lambda: self._backend.evaluate(batch))

    def capacity(self) -> int:
        return self._run.growing_capacity()  # type: ignore[no-any-return]


class _Reporter(RunReporter):
    """Writes the real log and reads the real commands, with injection points."""

    def __init__(self, run: FaultyRun, attempt: int) -> None:
        super().__init__(run.run_dir, attempt)
        self._run = run

    def record(self, event: Event) -> None:
        changes_restart = isinstance(event, RESTART_KINDS) or (isinstance(event, State) and event.id is not None)
        if changes_restart or self._run.killed:
            self._run.injection_point()
        super().record(event)
        self._run.on_event(event)
        if changes_restart:
            self._run.injection_point()

    def progress(self, progress: Progress) -> None:
        pass

    def commands(self) -> list[Command]:
        self._run.on_poll()
        return super().commands()


@contextmanager
def _intercepted_disk_calls(before_call: Callable[[int], None]) -> Iterator[None]:
    """Call ``before_call`` with its number before each disk call of a checkpoint's writer.

    Also let a paused run poll without a delay, and let micro grow after 2 steps without an out-of-memory error.
    """
    real = {name: getattr(os, name) for name in DISK_CALLS}
    counts: dict[threading.Thread, int] = {}

    def intercepted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            thread = threading.current_thread()
            if thread.name == "checkpoint":
                counts[thread] = counts.get(thread, 0) + 1
                before_call(counts[thread])
            return function(*args, **options)

        return call

    pause_poll, grow_after = loop.PAUSE_POLL, micro_fitter.GROW_AFTER
    try:
        loop.PAUSE_POLL, micro_fitter.GROW_AFTER = 0.0, 2
        for name, function in real.items():
            setattr(os, name, intercepted(function))
        yield
    finally:
        loop.PAUSE_POLL, micro_fitter.GROW_AFTER = pause_poll, grow_after
        for name, function in real.items():
            setattr(os, name, function)


def _join_writer() -> None:
    for thread in threading.enumerate():
        if thread.name == "checkpoint":
            thread.join()


def _fail_on_damage(text: str) -> None:
    raise AssertionError(text)


def operations_per_method(spec: RunSpec) -> dict[str, int]:
    """Return how many operations one call of each of ``OOM_METHODS`` has."""
    return {method: count_operations(spec, method) for method in OOM_METHODS}
