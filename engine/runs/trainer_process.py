"""Starts, adopts, watches and kills the trainer process of a run."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

from engine.events.run_dir import RunDir
from engine.host.process import ProcessIdentity, is_alive, process_identity, spawn_detached
from engine.runs.exit_reason import ExitReason, OomKillCounter, exit_reason

IDENTITY_TIMEOUT = 1.0  # seconds for a trainer that holds its lock to write its identity
LAUNCHER_TIMEOUT = 5.0  # seconds for a launcher to end its ranks
POLL = 0.05


class TrainerProcess:
    """``process`` holds pid, start time and attempt of the live trainer; None where there is none."""

    def __init__(self, run: RunDir) -> None:
        self.process: ProcessIdentity | None = None
        self._run = run
        self._child: subprocess.Popen[bytes] | None = None
        self._oom_kills: OomKillCounter | None = None
        self._killed_by: signal.Signals | None = None  # our first signal to it
        self._not_started: ExitReason | None = None
        self._exited = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def adopt(self) -> bool:
        """Watch a live trainer that another supervisor started; False where there is none.

        Such a trainer holds its lock and has written its identity.
        """
        for _ in range(round(IDENTITY_TIMEOUT / POLL)):
            if not self._run.has_trainer():
                return False
            process = self._run.trainer_identity()
            if process is not None and is_alive(process):
                self._watch(process)
                return True
            await asyncio.sleep(POLL)
        return False

    def start(self, argv: Sequence[str], attempt: int, env: Mapping[str, str], keep_fds: Sequence[int]) -> None:
        """Start ``argv``. Where the machine cannot start a process, ``wait`` returns at once and says why."""
        try:
            self._child = spawn_detached(argv, self._run.console_path, self._run.path, env, keep_fds)
        except OSError as error:  # no descriptor, process or memory left, or Python's own files are gone
            self._not_started = ExitReason(None, None, f"cannot start the trainer: {error}")
            self._exited.set()
            return
        if sys.platform == "darwin":  # a Mac without user input would go to sleep
            awake = ["caffeinate", "-i", "-w", str(self._child.pid)]
            spawn_detached(awake, self._run.console_path, self._run.path)
        self._watch(process_identity(self._child.pid, attempt))

    async def wait(self) -> ExitReason:
        """Wait for the trainer to exit and return why it did, as far as the kernel knows."""
        await self._exited.wait()
        if self._not_started is not None:
            reason, self._not_started = self._not_started, None
            return reason
        child, self._child, process, self.process = self._child, None, self.process, None
        ours = child is not None and process is not None and child.pid == process.pid
        code = await asyncio.to_thread(child.wait) if ours and child is not None else None
        if self._killed_by and (code is None or code > 0):  # a launcher exits with 1 where its ranks are killed
            code = -self._killed_by
        first, rank_zero = self._run.trainer_identity(), None
        if first and process and first.attempt == process.attempt and first.pid != process.pid:  # process: a launcher
            rank_zero = first.pid
        return exit_reason(code, self._oom_kills, self._run.console_path, rank_zero)

    def kill(self, launched: bool) -> None:
        """Kill the trainer by SIGKILL; with ``launched`` also its launcher, and so all ranks."""
        self._killed_by = signal.SIGKILL
        _kill(self._run.trainer_identity())
        if launched:
            self.kill_launcher()
        elif self.process is not None:
            _kill(self.process)  # it may not have written its identity yet

    def kill_launcher(self) -> None:
        """End the launcher and its ranks: by SIGTERM, after ``LAUNCHER_TIMEOUT`` by SIGKILL. Returns at once."""
        if self._child is not None:
            self._killed_by = self._killed_by or signal.SIGTERM
            task = asyncio.create_task(self._kill_group(self._child.pid))  # the leader of its own session
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _kill_group(self, leader: int) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(leader, number)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._exited.wait(), LAUNCHER_TIMEOUT)
                return

    def _watch(self, process: ProcessIdentity) -> None:
        """Notice the exit of ``process`` by its pidfd; by polling, where the platform has none."""
        self.process, self._killed_by = process, None
        self._oom_kills = OomKillCounter(process.pid)
        self._exited.clear()
        try:
            pidfd = os.pidfd_open(process.pid)
        except (AttributeError, OSError):
            task = asyncio.create_task(self._poll_until_exit(process))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        loop = asyncio.get_running_loop()

        def on_exit() -> None:
            loop.remove_reader(pidfd)
            os.close(pidfd)
            self._exited.set()

        loop.add_reader(pidfd, on_exit)

    async def _poll_until_exit(self, process: ProcessIdentity) -> None:
        while is_alive(process):
            await asyncio.sleep(4 * POLL)
        self._exited.set()


def _kill(process: ProcessIdentity | None) -> None:
    """Send SIGKILL to exactly that process: its pid may belong to another one by now, a pidfd cannot."""
    if process is None:
        return
    with contextlib.suppress(OSError):
        pidfd = os.pidfd_open(process.pid)
        try:
            if is_alive(process):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)
