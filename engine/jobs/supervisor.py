"""The process that looks after one run: it starts or adopts the trainer, says why it ended, and serves the log.

It holds nothing that is not on disk, so it can be killed at any moment; the trainer (or the next command that needs
one) starts another, which takes over from the files.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from engine.jobs.files import complain, read_json, write_json
from engine.jobs.history import History
from engine.jobs.launchers import launcher_of, trainer_command
from engine.jobs.log import LogWriter, Record, Tail
from engine.jobs.process import Lock, identity, is_alive, is_locked, signal_name, spawn_detached, this_boot, this_host
from engine.jobs.server import Server
from engine.jobs.status import ENDED, fold
from engine.jobs.store import Job
from engine.jobs.telemetry import Minute, Telemetry
from engine.version import package_version

POLL = 0.05  # seconds between two looks at the log: the mean delay of a record is half of it
STATE_EVERY = 1.0
MINUTE = 60
EXIT_RETRY = 75  # sysexits' EX_TEMPFAIL: the trainer asks to be started again
RESTARTS = 5  # in a row without a step beyond the furthest one
LONGEST_BACKOFF = 60.0
LAUNCHER_PATIENCE = 5.0  # seconds for a launcher to end its ranks
# glibc gives every large tensor back to the kernel and takes it again, page fault by page fault. A trainer on the CPU
# that keeps them is about a fifth faster for a tenth more memory (docs/log.md); on a card there is nothing to gain.
KEEP_PAGES = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 32),
    "MALLOC_TOP_PAD_": str(64 << 20),
}


class Supervisor:
    def __init__(self, job: Job) -> None:
        self.job = job
        self.history = History()
        self.summary = job.state()
        self.at = 0
        self._tail = Tail(job.log_path)
        self._log = LogWriter(job.log_path, int(self.summary.get("attempt") or 0))
        self._server = Server(self)
        self._telemetry = Telemetry(job.path)
        self._spec = job.spec()
        self._child: subprocess.Popen[bytes] | None = None
        self._trainer: dict[str, Any] | None = None
        self._met = False  # whether this attempt's ranks have
        self._died = asyncio.Event()
        self._stop = asyncio.Event()  # a stop that no trainer can hear, for none is alive
        self._failures = 0
        self._furthest = 0
        self._state_due = 0.0

    async def run(self) -> None:
        """Look after the run until it has ended."""
        self.history, self._tail.at = History.from_log(self.job.log_path)
        self._catch_up_summary()
        self.summary.update(
            supervisor=identity(os.getpid()), version=package_version(), host=this_host(), boot=this_boot()
        )
        self._save_state()
        await self._server.start()
        tasks = [asyncio.create_task(self._follow_log()), asyncio.create_task(self._measure())]
        try:
            if self.summary.get("phase") not in ENDED:
                await self._keep_running()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._read_log()
            self._save_state()
            await self._server.close()
            self._log.close()

    def stop_without_trainer(self, id: str) -> None:
        """Carry out a stop that no trainer can hear: none is alive, or its ranks have not met yet."""
        apart = launcher_of(self._spec) is not None and not self._met
        if self._trainer is None or apart:
            self._write("state", phase="stopping", reason="stop was asked for", id=id)
            self._stop.set()
        if self._child is not None and apart:
            self._ending = asyncio.create_task(self._end_launcher(self._child))

    async def _end_launcher(self, launcher: subprocess.Popen[bytes]) -> None:
        """Nothing has begun, so nothing is lost."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(launcher.pid, number)  # it leads a session of its own
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._died.wait(), LAUNCHER_PATIENCE)
                return

    # -- the trainer's life

    async def _keep_running(self) -> None:
        """Start, adopt and restart the trainer until the run has ended."""
        adopted = await self._adopt()
        if not adopted and self.summary.get("attempt") and not self._judge(None):
            return  # it died while nobody looked, and that was the end
        while True:
            if self._trainer is None and not await self._adopt():
                self._start_trainer()
            await self._died.wait()
            code = await self._reap()
            self._read_log()
            if not self._judge(code):
                return
            backoff = min(LONGEST_BACKOFF, 2.0 ** (self._failures - 1) - 0.5)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), backoff)
                self._end("stopped", "stopped between two attempts")
                return

    async def _adopt(self) -> bool:
        """Watch a trainer that another supervisor started, if one lives: it holds its lock and wrote who it is."""
        for _ in range(20):
            if not is_locked(self.job.trainer_lock):
                return False
            who = read_json(self.job.trainer_who)
            if is_alive(who):
                self._watch(who)
                return True
            await asyncio.sleep(0.05)  # it has the lock and is about to write its name
        return False

    def _start_trainer(self) -> None:
        attempt = int(self.summary.get("attempt") or 0) + 1
        self._log.attempt = self.summary["attempt"] = attempt
        self._write("state", phase="starting", reason="" if attempt == 1 else "restarted")
        argv = trainer_command(self._spec, self.job.path, attempt)
        env = {} if self._telemetry.has_device else KEEP_PAGES
        self._child = spawn_detached(argv, self.job.console_path, self.job.path, env)
        self._watch(identity(self._child.pid))

    def _watch(self, who: dict[str, Any]) -> None:
        """Learn of the process's death by its pidfd, or by looking, where the platform has none."""
        self._trainer = who
        self._met = False
        self._died.clear()
        self.summary["trainer"] = who
        self._telemetry.watch(who["pid"])
        self._save_state()
        try:
            pidfd = os.pidfd_open(who["pid"])
        except (AttributeError, OSError):
            self._looking = asyncio.create_task(self._watch_by_looking(who))
            return
        loop = asyncio.get_running_loop()

        def died() -> None:
            loop.remove_reader(pidfd)
            os.close(pidfd)
            self._died.set()

        loop.add_reader(pidfd, died)

    async def _watch_by_looking(self, who: dict[str, Any]) -> None:
        while is_alive(who):
            await asyncio.sleep(0.2)
        self._died.set()

    async def _reap(self) -> int | None:
        """The exit status of a child of ours (negative: the signal); None for an adopted trainer."""
        self._telemetry.watch(None)
        child, self._child, who, self._trainer = self._child, None, self._trainer, None
        if child is None or who is None or child.pid != who["pid"]:
            return None
        return await asyncio.to_thread(child.wait)

    def _judge(self, code: int | None) -> bool:
        """Write down why the trainer ended; True if it is to be started again."""
        last = self.summary.get("exit") or {}
        silent = last.get("attempt") != self.summary.get("attempt")  # it could not say so itself
        if silent:
            if code is not None and code < 0:
                last = {"code": None, "signal": signal_name(-code), "why": f"killed by {signal_name(-code)}"}
            else:
                why = (
                    "killed, cause unknown" if code is None else f"ended with code {code}; see {self.job.console_path}"
                )
                last = {"code": code, "signal": None, "why": why}
            self._write("exit", **last)
            self._read_log()
        if self.summary.get("phase") in ENDED:
            return False
        if self.summary.get("phase") == "stopping" or self._stop.is_set():
            self._end("stopped", f"while stopping: {last['why']}")
            return False
        # Of several ranks the first may die before it can speak; the code is then its launcher's, and means nothing.
        unknown = silent and launcher_of(self._spec) is not None
        if not unknown and last["code"] not in (None, EXIT_RETRY) and last["code"] < 64:
            self._end("failed", last["why"])
            return False
        step = int(self.summary.get("step") or 0)
        self._failures = 1 if step > self._furthest else self._failures + 1
        self._furthest = max(self._furthest, step)
        if self._failures > RESTARTS:
            self._end("failed", f"{RESTARTS} restarts in a row came no further; the last: {last['why']}")
            return False
        self._write("state", phase="recovering", reason=last["why"])
        return True

    def _end(self, phase: str, reason: str) -> None:
        self._write("state", phase=phase, reason=reason)
        self._read_log()

    # -- the log and the state

    def _write(self, kind: str, **fields: Any) -> None:
        """Log a record; on a full disk only the state learns of it, for the run must be looked after all the same."""
        try:
            self._log.write(kind, **fields)
        except OSError as error:
            complain(f"events.jsonl: {error}")
            fold(self.summary, {"t": time.time(), "kind": kind, "attempt": self._log.attempt, **fields})

    def _catch_up_summary(self) -> None:
        """Fold the whole log once, so that nothing a dead supervisor missed is lost."""
        tail = Tail(self.job.log_path)
        while tail.at < self._tail.at and (records := tail.poll()):
            for at, record in records:
                if at < self._tail.at:
                    fold(self.summary, record)
        tail.close()
        self.at = self._tail.at
        self._log.attempt = int(self.summary.get("attempt") or 0)

    async def _follow_log(self) -> None:
        synced = time.monotonic()
        dirty = False
        while True:
            if self._tail.grown():
                self._read_log()
                dirty = True
            now = time.monotonic()
            if now >= self._state_due and dirty:
                self._save_state()
            if dirty and now - synced >= 1.0:
                synced, dirty = now, False
                with contextlib.suppress(OSError):  # the disk is full: what is written stays readable
                    await asyncio.to_thread(self._tail.sync)
            await asyncio.sleep(POLL)

    def _read_log(self) -> None:
        before = self._tail.at
        while records := self._tail.poll():
            for _, record in records:
                self._take(record)
        self.at = self._tail.at
        if self.at != before:
            self._server.changed()

    def _take(self, record: Record) -> None:
        phase = self.summary.get("phase")
        fold(self.summary, record)
        if not self.history.add(record):
            self.history, _ = History.from_log(self.job.log_path, self._tail.at)
        if self.summary.get("phase") != phase or record["kind"] == "checkpoint":  # who asked for it looks it up at once
            self._save_state()
        if record["kind"] == "start":
            self._met = True
            # Of several ranks the first, not their launcher.
            self._telemetry.watch(read_json(self.job.trainer_who).get("pid"))

    def _save_state(self) -> None:
        self._state_due = time.monotonic() + STATE_EVERY
        try:
            write_json(self.job.state_path, self.summary)
        except OSError as error:  # a full disk must not end a run: state is a summary of the log
            complain(f"state.json: {error}")

    # -- the machine

    async def _measure(self) -> None:
        minute, started = Minute(), time.monotonic()
        try:
            while True:
                sample = self._telemetry.sample()
                record = {"t": time.time(), "kind": "telemetry", **sample}
                minute.add(sample)
                self.history.add(record)
                self._server.publish(record)
                if minute.samples >= MINUTE:
                    self._write("telemetry", **minute.spans)
                    minute = Minute()
                # A fixed beat: the time a sample takes does not add up.
                await asyncio.sleep(1.0 - (time.monotonic() - started) % 1.0)
        finally:
            if minute.samples:
                self._write("telemetry", **minute.spans)


def main() -> int:
    job = Job(Path(sys.argv[1]).absolute())
    lock = Lock(job.supervisor_lock)
    if not lock.acquire(patience=0.5):
        return 0  # one supervisor a job, ever
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    asyncio.run(Supervisor(job).run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
