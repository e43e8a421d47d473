"""The process that looks after one run: it starts or adopts the trainer, says why it ended, and serves the log.

It holds nothing that is not on disk, so it can be killed at any moment; the trainer (or the next command that needs
one) starts another, which takes over from the files.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from engine.events.exit_codes import is_user_error
from engine.events.log import LogWriter, Record
from engine.events.log_index import LogIndex
from engine.events.run_dir import RunDir
from engine.events.summary import ENDED, update_summary
from engine.host.files import read_json, rotate, write_json, write_stderr
from engine.host.process import Lock, boot_id, host_name, process_identity
from engine.host.systemd_scope import scope_prefix
from engine.host.version import package_version
from engine.memory.calibration import Measured, observe
from engine.memory.hardware import detect_hardware
from engine.runs.device_locks import DeviceLocks, devices_of, holder
from engine.runs.exit_reason import ExitReason
from engine.runs.hooks import Hooks
from engine.runs.launchers import launcher_of, trainer_command
from engine.runs.resource_alerts import ResourceAlerts
from engine.runs.restarts import RESTARTS, Restarts
from engine.runs.server import Server
from engine.runs.telemetry import Telemetry
from engine.runs.telemetry_sampler import TelemetrySampler
from engine.runs.trainer_process import TrainerProcess
from engine.runs.watchdog import Watchdog
from profiles.errors import UserError

POLL = 0.05  # seconds between two looks at the log: the mean delay of a record is half of it
STATE_EVERY = 1.0
STALL_LOOK = 1.0
SIGTERM_PATIENCE = 2.0  # seconds in which a trainer that was told to end as well says so
DEVICE_LOOK = 0.5  # seconds between two tries for a device that another run has
NOBODY_LOOKED = ExitReason(None, None, "killed, cause unknown")
CONSOLE_LIMIT = 16 << 20  # bytes of console.log; as many again are kept as console.log.1
# glibc gives every large tensor back to the kernel and takes it again, page fault by page fault. A trainer on the CPU
# that keeps them is about a fifth faster for a tenth more memory (docs/log.md); on a card there is nothing to gain.
KEEP_PAGES = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 32),
    "MALLOC_TOP_PAD_": str(64 << 20),
}


class Supervisor:
    def __init__(self, run_dir: RunDir) -> None:
        self.run_dir = run_dir
        self._spec = run_dir.spec()
        self.index = LogIndex(run_dir)
        self.summary = self.index.summary
        self._log = LogWriter(run_dir.log_path, int(self.summary.get("attempt") or 0))
        self._server = Server(self)
        self._telemetry = Telemetry(run_dir.path)
        alarms = ResourceAlerts(Path(self._spec.train.out))
        self._measuring = TelemetrySampler(self._telemetry, alarms, self._write, self._show_sample)
        self._hooks = Hooks(run_dir, self.summary, self._write, self._save_state)
        self._trainer = TrainerProcess(run_dir)
        self._devices = DeviceLocks(run_dir.home, devices_of(self._spec))
        self._shared = bool(run_dir.start().get("share_device"))
        self._restarts = Restarts()
        self._stall = Watchdog()
        self._met = False  # whether this attempt's ranks have
        self._attempt: int | None = None  # of the trainer that is watched
        self._stop = asyncio.Event()  # a stop that no trainer can hear, for none is alive
        self._going_down = False
        self._state_due = 0.0

    async def run(self) -> None:
        """Look after the run until it has ended."""
        version_before = self.summary.get("version")
        self.summary.update(
            supervisor=process_identity(os.getpid()), version=package_version(), host=host_name(), boot=boot_id()
        )
        self._save_state()  # who we are, before a lost history costs seconds
        await asyncio.to_thread(self.index.catch_up)
        self._log.attempt = int(self.summary.get("attempt") or 0)
        for note in self.index.warnings:
            self._write("log", level="warning", text=note)
        self._say_version(version_before)
        self._save_state()
        self._hooks.catch_up(self.index.offset)
        await self._server.start()
        beside = (self._follow_log, self._measure, self._watch_for_stalls)
        tasks = [asyncio.create_task(_unceasingly(each)) for each in beside]
        life = asyncio.create_task(self._keep_running())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._on_sigterm, life)
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await life
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._read_log()
            self._devices.release()  # whoever waits for them need not wait for hooks
            await self._hooks.finish()
            self._read_log()
            self._save_state()
            self.index.save()
            await self._server.close()
            self._log.close()

    def request_stop(self, id: str) -> None:
        """Carry out a stop that no trainer can hear: none is alive, or its ranks have not met yet."""
        apart = launcher_of(self._spec) is not None and not self._met
        if self._trainer.who is None or apart:
            self._write("state", phase="stopping", reason="stop was asked for", id=id)
            self._stop.set()
        if apart:
            self._trainer.end_launcher()

    def kill_trainer(self, id: str) -> None:
        """End the run at once, whatever the trainer does or cannot do any more."""
        self._write("state", phase="stopping", reason="the trainer is killed, as asked", id=id)
        self._read_log()
        self._stop.set()
        self._trainer.kill(launched=launcher_of(self._spec) is not None)

    # -- the trainer's life

    async def _keep_running(self) -> None:
        """Start, adopt and restart the trainer until the run has ended."""
        if self.summary.get("phase") in ENDED:
            return
        unjudged = self.summary.get("attempt") and self.summary.get("phase") != "recovering"
        if not await self._adopt() and unjudged and self._judge(NOBODY_LOOKED) is None:
            return  # it died while nobody looked, and that was the end
        while True:
            if self._trainer.who is None and not await self._adopt() and not await self._start():
                return
            death = await self._trainer.ended()
            self._telemetry.watch(None)
            self._read_log()
            backoff = self._judge(death)
            if backoff is None or await self._stopped_within(backoff, "stopped between two attempts"):
                return

    def _on_sigterm(self, life: asyncio.Task[None]) -> None:
        """Leave, unless the trainer was told to end as well: that is the machine going down.

        Then the run has not ended: what is written last is where to go on after the boot.
        """
        self._going_down = True

        async def leave() -> None:
            await asyncio.sleep(SIGTERM_PATIENCE)
            if self.summary.get("phase") not in ("stopping", "saving", *ENDED):
                life.cancel()

        self._leaving = asyncio.create_task(leave())

    async def _stopped_within(self, seconds: float, reason: str) -> bool:
        """Wait; whether a stop came meanwhile, which then has ended the run."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)
            self._end("stopped", reason)
            return True
        return False

    async def _adopt(self) -> bool:
        if not await self._trainer.adopt():
            return False
        self._watching()
        return True

    async def _start(self) -> bool:
        """Start the trainer as soon as its devices are free; False where a stop came first."""
        waits_for = ""
        while not self._shared and (taken := self._devices.take(self.run_dir.id)):
            device, other = taken
            verb = "uses" if holder(self.run_dir.home, device) == other else "waits for too, and came first"
            reason = f"waits for {device}, which run {other} {verb}"
            if reason != waits_for:
                self._write("state", phase="starting", reason=reason)
                waits_for = reason
            if await self._stopped_within(DEVICE_LOOK, f"stopped while it waited for {device}"):
                return False
        attempt = int(self.summary.get("attempt") or 0) + 1
        self._log.attempt = self.summary["attempt"] = attempt
        self._write("state", phase="starting", reason="" if attempt == 1 else "restarted")
        argv = [*scope_prefix(f"{self.run_dir.id}-trainer"), *trainer_command(self._spec, self.run_dir.path, attempt)]
        env = {**({} if self._telemetry.has_device else KEEP_PAGES), **self._devices.env}
        self._trainer.start(argv, attempt, env, self._devices.fds)
        self._watching()
        return True

    def _watching(self) -> None:
        who = self.summary["trainer"] = self._trainer.who or {}
        self._attempt = who.get("attempt")
        self._met = False
        self._telemetry.watch(who.get("pid"))
        self._save_state()

    def _judge(self, death: ExitReason) -> float | None:
        """Write down why the trainer ended; seconds until it is to be started again, None where that was the end."""
        last = self.summary.get("exit") or {}
        silent = last.get("attempt") != (self._attempt or self.summary.get("attempt"))  # it could not say so itself
        if silent:
            last = {"code": death.code, "signal": death.signal, "why": death.why}
            self._write("exit", **last)
            if death.out_of_memory:
                self._write("oom", where="host", wanted=None, parts={}, action="restart")
            self._read_log()
        if self._going_down and self.summary.get("phase") == "stopped":
            self._write("state", phase="recovering", reason="ended by SIGTERM, as when a machine goes down")
            return None
        if self.summary.get("phase") in ENDED:
            return None
        if self.summary.get("phase") == "stopping" or self._stop.is_set():
            self._end("stopped", f"while stopping: {last['why']}")
            return None
        # Of several ranks the first may die before it can speak; the code is then its launcher's, and means nothing.
        unknown = silent and launcher_of(self._spec) is not None
        if not unknown and is_user_error(last["code"]):
            self._end("failed", last["why"])
            return None
        backoff = self._restarts.next(int(self.summary.get("step") or 0))
        if backoff is None:
            self._end("failed", f"{RESTARTS} restarts in a row came no further; the last: {last['why']}")
            return None
        self._write("state", phase="recovering", reason=last["why"])
        return backoff

    def _end(self, phase: str, reason: str) -> None:
        self._write("state", phase=phase, reason=reason)
        self._read_log()

    async def _watch_for_stalls(self) -> None:
        while True:
            await asyncio.sleep(STALL_LOOK)
            if text := self._stall.check(time.monotonic()):
                self._write("alert", what="stall", text=text)

    def _say_version(self, before: str | None) -> None:
        """An upgrade under a living run: its trainer is of another version than what looks after it from now on."""
        now = package_version()
        if before not in (None, now) and self.summary.get("phase") not in ENDED:
            text = f"the run was looked after by mla-tui {before}, from here on by {now}"
            self._write("alert", what="version", text=text)

    # -- the log and the state

    def _write(self, kind: str, **fields: Any) -> None:
        """Log a record; on a full disk only the state learns of it, for the run must be looked after all the same."""
        try:
            self._log.write(kind, **fields)
        except OSError as error:
            write_stderr(f"events.jsonl: {error}")
            update_summary(self.summary, {"t": time.time(), "kind": kind, "attempt": self._log.attempt, **fields})

    async def _follow_log(self) -> None:
        synced = time.monotonic()
        dirty = False
        while True:
            if self.index.has_grown():
                self._read_log()
                dirty = True
            now = time.monotonic()
            if now >= self._state_due and dirty:
                self._save_state()
            if dirty and now - synced >= 1.0:
                synced, dirty = now, False
                with contextlib.suppress(OSError):  # the disk is full: what is written stays readable
                    await asyncio.to_thread(self.index.sync)
            await asyncio.sleep(POLL)

    def _read_log(self) -> None:
        known, before = self._known(), self.index.offset
        while records := self.index.poll():
            for at, record in records:
                self.on_record(record)
                self._hooks.take(at, record)
        if self.index.offset != before:
            self._server.changed()
            self.index.save_if_due()
        if self._known() != known:
            self._save_state()

    def _known(self) -> tuple[Any, Any]:
        """What the state on disk must not lag behind in: a person who asked for it looks there next."""
        return self.summary.get("phase"), self.summary.get("checkpoint")

    def on_record(self, record: Record) -> None:
        """A sign of life of the trainer, logged or live."""
        if record["kind"] == "start":
            self._met = True
            # Of several ranks the first, not their launcher.
            self._telemetry.watch(read_json(self.run_dir.trainer_identity_path).get("pid"))
        if record["kind"] == "memory" and record.get("measured"):
            self._remember(record)
        if text := self._stall.heard(record, time.monotonic()):
            self._write("log", level="info", text=text, rank=None)

    def _remember(self, record: Record) -> None:
        """What the run really took corrects the forecasts of later ones."""
        with contextlib.suppress(OSError, UserError, KeyError, TypeError):  # damaged, or a full disk
            spec = self._spec.with_batch(**{key: record[key] for key in ("micro", "sequences", "context")})
            measured = Measured(**{place: record["measured"].get(place) for place in ("device", "host")})
            observe(spec, detect_hardware(), measured, run=self.run_dir.name, home=self.run_dir.home)

    def _save_state(self) -> None:
        self._state_due = time.monotonic() + STATE_EVERY
        try:
            write_json(self.run_dir.state_path, self.summary)
        except OSError as error:  # a full disk must not end a run: state is a summary of the log
            write_stderr(f"state.json: {error}")

    async def _measure(self) -> None:
        await self._measuring.go_on(lambda: self.summary.get("checkpoint_bytes"))

    def _show_sample(self, record: Record) -> None:
        self.index.history.sample(record)
        self._server.publish(record)
        rotate(self.run_dir.console_path, CONSOLE_LIMIT)


async def _unceasingly(body: Callable[[], Awaitable[None]]) -> None:
    """Run ``body`` without end: a fault in what merely looks on must neither go unsaid nor stop the looking."""
    while True:
        try:
            await body()
        except Exception:
            write_stderr(traceback.format_exc().rstrip())
            await asyncio.sleep(1.0)


def main() -> int:
    run_dir = RunDir(Path(sys.argv[1]).absolute())
    lock = Lock(run_dir.supervisor_lock)
    try:
        if not lock.acquire(timeout=0.5):
            return 0  # one supervisor a run, ever
    except OSError as error:
        write_stderr(f"supervisor.lock: {error}")
        return 1
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    try:
        asyncio.run(Supervisor(run_dir).run())
    except UserError as error:
        write_stderr(str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
