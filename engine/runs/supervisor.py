"""Supervises one run: starts or adopts its trainer, restarts it, logs why it exited, and serves the log.

Everything it holds is on disk, so it can be killed at any moment. The trainer (or the next command that needs one)
starts another supervisor, which continues from the files.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
import traceback
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from engine.checkpoints.resume_source import hold_source
from engine.events.commands import CommandReader
from engine.events.exit_codes import EXIT_NEEDS_ATTENTION, is_user_error
from engine.events.log import LogWriter, stamped
from engine.events.log_index import LogIndex
from engine.events.phases import (
    FAILED,
    NEEDS_ATTENTION,
    RECOVERING,
    SAVING,
    STARTING,
    STOPPED,
    STOPPING,
    has_ended,
)
from engine.events.requests import StopRequest
from engine.events.run_dir import RunDir
from engine.events.status import LastExit
from engine.events.status_updates import update_status
from engine.events.types import Alert, Checkpoint, Event, Exit, Log, Memory, Oom, Start, State, Step, Telemetry
from engine.host.files import read_json, rotate, write_stderr
from engine.host.process import Lock, boot_id, host_name, process_identity
from engine.host.programs import SAFE_PATH
from engine.host.systemd_scope import scope_prefix
from engine.host.version import VERSION
from engine.memory.calibration import MeasuredPeak, record_run
from engine.memory.hardware import detect_hardware
from engine.runs.attention import Attention
from engine.runs.device_locks import DeviceLocks, devices_of
from engine.runs.exit_reason import UNSEEN, ExitReason
from engine.runs.file_watch import FileWatch
from engine.runs.hooks import Hooks
from engine.runs.launchers import launcher_of, trainer_command
from engine.runs.resource_alerts import ResourceAlerts
from engine.runs.restarts import MAX_RESTARTS, Restarts
from engine.runs.server import Server
from engine.runs.speed_recorder import SpeedRecorder
from engine.runs.state_file import StateFile
from engine.runs.telemetry import Sensors
from engine.runs.telemetry_sampler import TelemetrySampler
from engine.runs.trainer_process import TrainerProcess
from engine.runs.watchdog import Watchdog
from profiles.errors import UserError

POLL_INTERVAL = 0.05  # seconds between polls of the log: a record is delayed by half of it on average
STALL_INTERVAL = 1.0
SIGTERM_GRACE = 2.0  # seconds for a trainer that got SIGTERM too to log that it is stopping
FILES_INTERVAL = 1.0  # seconds between checks of the files that other processes look for
DEVICE_INTERVAL = 0.5  # seconds between attempts to acquire a device that another run uses
CONSOLE_LIMIT = 16 << 20  # bytes of console.log; as many again are kept as console.log.1
# glibc returns every large tensor to the kernel and gets it again page fault by page fault. A CPU trainer that keeps
# the pages is about a fifth faster for a tenth more memory (docs/log.md); on a GPU there is no gain.
KEEP_PAGES = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 32),
    "MALLOC_TOP_PAD_": str(64 << 20),
}


class Supervisor:
    def __init__(self, run_dir: RunDir, lock: Lock) -> None:
        self.run_dir = run_dir
        self._spec = run_dir.spec()
        self.index = LogIndex(run_dir)
        self.state = self.index.state
        self._log = LogWriter(run_dir.log_path, self.state.attempt)
        self._state_file = StateFile(run_dir, self.state, self._log)
        self.files = FileWatch(run_dir, lock, self._log, self._spec, self.state)
        self._server = Server(self)
        self._sensors = Sensors(run_dir.path)
        alerts = ResourceAlerts(Path(self._spec.train.out), run_dir.home)
        self._sampler = TelemetrySampler(self._sensors, alerts, self._write, self._publish_sample)
        self._hooks = Hooks(run_dir, self.state, self._write, self._state_file.save)
        self._trainer = TrainerProcess(run_dir)
        self._attention = Attention(run_dir, self._spec)
        self._speed = SpeedRecorder(self._spec, run_dir.name, run_dir.home)
        self._source = hold_source(run_dir, self.state.checkpoint)
        self._devices = DeviceLocks(run_dir.home, devices_of(self._spec))
        self._shares_device = run_dir.launch().share_device
        self._restarts = Restarts()
        self._watchdog = Watchdog()
        self._ranks_started = False  # whether this attempt has logged its start
        self._attempt: int | None = None  # of the watched trainer
        self._stop = asyncio.Event()  # set for a stop that no trainer can carry out
        self._got_sigterm = False

    async def run(self) -> None:
        """Supervise the run until it has ended."""
        previous_version = self.state.version
        self.state.supervisor, self.state.version = process_identity(os.getpid()), VERSION
        self.state.host, self.state.boot = host_name(), boot_id()
        self._state_file.save()  # before catching up, which takes seconds where the history must be rebuilt
        await asyncio.to_thread(self.index.catch_up)
        self._log.attempt = self.state.attempt
        for warning in self.index.warnings:
            self._write(Log(level="warning", text=warning))
        self._report_upgrade(previous_version)
        self._state_file.save()
        self._hooks.catch_up(self.index.offset)
        await self._server.start()
        training = asyncio.create_task(self._keep_trainer_running())
        keep_files = partial(self._keep_files, training)
        sample = partial(self._sampler.run, lambda: self.state.checkpoint_bytes)
        background = (self._follow_log, sample, self._check_for_stalls, keep_files)
        tasks = [asyncio.create_task(_run_forever(each)) for each in background]
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._on_sigterm, training)
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await training
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._read_log()
            self._devices.release()  # before the hooks, so that the next run need not wait for them
            await self._hooks.finish()
            self._read_log()
            self._state_file.save()
            if self._log.is_linked():
                self.index.save()
            await self._server.close()
            self._log.close()

    def request_stop(self, id: str) -> None:
        """Stop the run where no trainer can read the command: none is alive, or its ranks have not started yet."""
        only_launcher = launcher_of(self._spec) is not None and not self._ranks_started
        if self._trainer.process is None or only_launcher:
            self._write(State(phase=STOPPING, reason="stop requested", id=id))
            self._stop.set()
        if only_launcher:
            self._trainer.kill_launcher()

    def kill_trainer(self, id: str) -> None:
        """End the run at once by SIGKILL, whatever the trainer is doing."""
        self._write(State(phase=STOPPING, reason="kill requested", id=id))
        self._read_log()
        self._stop.set()
        self._trainer.kill(launched=launcher_of(self._spec) is not None)

    # -- the trainer

    async def _keep_trainer_running(self) -> None:
        """Start, adopt and restart the trainer until the run has ended."""
        if has_ended(phase := self.state.phase):
            return
        exit_unhandled = self.state.attempt and phase not in (RECOVERING, NEEDS_ATTENTION)
        if not await self._adopt() and exit_unhandled and self._handle_exit(UNSEEN) is None:
            return  # it exited while no supervisor was alive, and is not restarted
        while True:
            if self._trainer.process is None and not await self._adopt() and not await self._start():
                return
            reason = await self._trainer.wait()
            self._sensors.set_process(None)
            self._read_log()
            if not self._has_its_files(trains=False):
                return  # what it logged now would be lost
            backoff = self._handle_exit(reason)
            if backoff is None or await self._wait_for_stop(backoff, "stopped before the restart"):
                return

    def _on_sigterm(self, training: asyncio.Task[None]) -> None:
        """Exit, unless the trainer got SIGTERM too: then the machine is shutting down and the trainer saves first.

        In that case the run has not ended; it is resumed from that checkpoint after the boot.
        """
        self._got_sigterm = True

        async def leave() -> None:
            await asyncio.sleep(SIGTERM_GRACE)
            phase = self.state.phase
            if phase not in (STOPPING, SAVING) and not has_ended(phase):
                training.cancel()

        self._leaving = asyncio.create_task(leave())

    async def _wait_for_stop(self, seconds: float, reason: str) -> bool:
        """Wait up to ``seconds`` for a stop. True where one came; the run has then ended with ``reason``."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)
            self._end(STOPPED, reason)
            return True
        return False

    async def _adopt(self) -> bool:
        if not await self._trainer.adopt():
            return False
        self._track_trainer()
        return True

    async def _start(self) -> bool:
        """Start the trainer once it has what it needs and its devices are free; False where a stop came first."""
        if not await self._attention.wait(lambda: self.state.checkpoint, self._write, self._wait_for_stop):
            return False
        logged = ""
        while not self._shares_device and (waits := self._devices.waits_for(self.run_dir.id)):
            device, reason = waits
            if reason != logged:
                self._write(State(phase=STARTING, reason=reason))
                logged = reason
            if await self._wait_for_stop(DEVICE_INTERVAL, f"stopped while waiting for {device}"):
                return False
        with contextlib.suppress(OSError):
            self.files.restore_spec()
        attempt = self.state.attempt + 1
        self._log.attempt = self.state.attempt = attempt
        self._write(State(phase=STARTING, reason="" if attempt == 1 else "restarted"))
        argv = [*scope_prefix(f"{self.run_dir.id}-trainer"), *trainer_command(self._spec, self.run_dir.path, attempt)]
        launched = SAFE_PATH if launcher_of(self._spec) else {}
        env = {**launched, **({} if self._sensors.has_device else KEEP_PAGES), **self._devices.env}
        self._trainer.start(argv, attempt, env, self._devices.fds)
        self._track_trainer()
        return True

    def _track_trainer(self) -> None:
        """Watch the trainer that was just started or adopted."""
        process = self.state.trainer = self._trainer.process
        self._attempt = process.attempt if process else None
        self._ranks_started = False
        self._sensors.set_process(process.pid if process else None)
        self._state_file.save()

    def _handle_exit(self, reason: ExitReason) -> float | None:
        """Log why the trainer exited; return the seconds until its restart, None where the run is not restarted."""
        last = self.state.exit
        attempt = self._attempt or self.state.attempt
        unlogged = last is None or last.attempt != attempt  # the trainer could not log it
        if last is None or unlogged:
            last = LastExit(reason.code, reason.signal, reason.why, attempt)
            self._write(Exit(code=reason.code, signal=reason.signal, why=reason.why))
            if reason.out_of_memory:
                self._write(Oom(where="host", action="restart", micro=self.state.micro, accum=self.state.accum))
            self._read_log()
        phase = self.state.phase
        if self._got_sigterm and phase == STOPPED:
            self._write(State(phase=RECOVERING, reason="stopped by SIGTERM, as at a shutdown of the machine"))
            return None
        if has_ended(phase):
            return None
        if phase == STOPPING or self._stop.is_set():
            self._end(STOPPED, f"while stopping: {last.why}" if last.why else self.state.reason or "")
            return None
        if stop := self._pending_stop():
            self._write(State(phase=STOPPING, reason="stop requested", id=stop))
            self._end(STOPPED, f"the trainer exited before it could stop: {last.why}")
            return None
        if last.code == EXIT_NEEDS_ATTENTION:
            self._attention.refuse_data(last.why)
            return 0.0
        # Of several ranks one may die before it can log; the code is then the launcher's and says nothing. A trainer
        # that could not log its end is started again, from its last checkpoint, and says it then.
        says_nothing = unlogged and (launcher_of(self._spec) is not None or last.code == 0)
        if not says_nothing and is_user_error(last.code):
            self._end(FAILED, last.why)
            return None
        backoff = self._restarts.next_backoff(self.state.step or 0)
        if backoff is None:
            self._end(FAILED, f"gave up after {MAX_RESTARTS} restarts without progress; last exit: {last.why}")
            return None
        self._write(State(phase=RECOVERING, reason=last.why))
        return backoff

    def _pending_stop(self) -> str | None:
        """The id of a stop that no trainer has acknowledged; a restarted one might exit before it could read it too."""
        pending = CommandReader(self.run_dir.commands_path, self.run_dir.log_path).poll()
        return next((command.id for command in pending if isinstance(command.request, StopRequest)), None)

    def _end(self, phase: str, reason: str) -> None:
        self._write(State(phase=phase, reason=reason))
        self._read_log()

    async def _check_for_stalls(self) -> None:
        while True:
            await asyncio.sleep(STALL_INTERVAL)
            if text := self._watchdog.check(time.monotonic()):
                self._write(Alert(what="stall", text=text))

    async def _keep_files(self, training: asyncio.Task[None]) -> None:
        """Keep the lock files and state.json in place; give up the run where its log is not the one that is open."""
        while True:
            await asyncio.sleep(FILES_INTERVAL)
            with contextlib.suppress(OSError):
                if self._trainer.process is not None and not self._shares_device:
                    self._devices.hold(self.run_dir.id)
            trains = self._trainer.process is not None and self.state.start_attempt == self._attempt
            if not self._has_its_files(trains):
                training.cancel()
                return
            if not read_json(self.run_dir.state_path):
                self._state_file.save()

    def _has_its_files(self, trains: bool) -> bool:
        with contextlib.suppress(OSError):  # a full disk, or no permission: tried again a second later
            return self.files.check(trains, self.index.offset)
        return True

    def _report_upgrade(self, previous: str | None) -> None:
        """Log an alert where mla-tui was upgraded during the run: its trainer is of another version than we are."""
        if previous not in (None, VERSION) and not has_ended(self.state.phase):
            text = f"the run was supervised by mla-tui {previous}, from now on by {VERSION}"
            self._write(Alert(what="version", text=text))

    # -- the log and the state

    def _write(self, event: Event) -> None:
        """Log an event. On a full disk only update the state and show it to clients: supervision must continue."""
        try:
            self._log.write(event)
        except OSError as error:
            write_stderr(f"events.jsonl: {error}")
            update_status(self.state, event := stamped(event, self._log.attempt))
            if isinstance(event, State | Alert):
                self._server.publish(event)

    async def _follow_log(self) -> None:
        synced = time.monotonic()
        dirty = False
        while True:
            if self.index.has_grown():
                self._read_log()
                dirty = True
            now = time.monotonic()
            if dirty or self._state_file.failed:
                self._state_file.save_if_due()
            if dirty and now - synced >= 1.0:
                synced, dirty = now, False
                with contextlib.suppress(OSError):  # the disk is full: what is written stays readable
                    await asyncio.to_thread(self.index.sync)
            await asyncio.sleep(POLL_INTERVAL)

    def _read_log(self) -> None:
        offset = self.index.offset
        while events := self.index.poll():
            for at, event in events:
                self.on_event(event)
                self._hooks.enqueue(at, event)
        if self.index.offset != offset:
            self._server.notify()
            self.index.save_if_due()
        self._state_file.save_if_urgent()

    def on_event(self, event: Event) -> None:
        """Handle an event of the trainer, logged or live."""
        match event:
            case Start():
                self._ranks_started = True
                # The process of rank 0, not its launcher.
                trainer = self.run_dir.trainer_identity()
                self._sensors.set_process(trainer.pid if trainer else None)
                self._speed.restart()
            case Checkpoint(ok=True):
                self._source.close()
            case Step():
                self._speed.observe(event)
            case Memory(measured=measured) if measured is not None:
                self._calibrate(event, MeasuredPeak(measured.device, measured.host))
        if text := self._watchdog.observe(event, time.monotonic()):
            self._write(Alert(what="stall-over", text=text))

    def _calibrate(self, event: Memory, measured: MeasuredPeak) -> None:
        """Store the measured memory, which corrects the forecasts of later runs."""
        if event.micro is None or event.sequences is None or event.context is None:
            return
        with contextlib.suppress(OSError, UserError):  # a full disk, or values that no run can have
            spec = self._spec.with_batch(micro=event.micro, sequences=event.sequences, context=event.context)
            hardware = detect_hardware(spec.launch.gpus_per_node)
            record_run(spec, hardware, measured, run=self.run_dir.name, home=self.run_dir.home)

    def _publish_sample(self, sample: Telemetry) -> None:
        self.index.history.sample(sample)
        self._server.publish(sample)
        rotate(self.run_dir.console_path, CONSOLE_LIMIT)


async def _run_forever(body: Callable[[], Awaitable[None]]) -> None:
    """Run ``body``; where it raises, print the traceback and start it again."""
    while True:
        try:
            await body()
        except Exception:
            write_stderr(traceback.format_exc().rstrip())
            await asyncio.sleep(1.0)
