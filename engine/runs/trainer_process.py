"""The trainer of a run as a process: started by this supervisor or adopted from a dead one, watched, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from engine.events.run_dir import RunDir
from engine.host.files import read_json
from engine.host.process import is_alive, is_locked, process_identity, spawn_detached
from engine.runs.exit_reason import ExitReason, OomKillCounter, death

NAMING_PATIENCE = 1.0  # seconds for a trainer that has its lock to write its name
LAUNCHER_PATIENCE = 5.0  # seconds for a launcher to end its ranks
LOOK = 0.05


class TrainerProcess:
    """``who`` is pid, start time and attempt of the living one, or None."""

    def __init__(self, run: RunDir) -> None:
        self.who: dict[str, Any] | None = None
        self._run = run
        self._child: subprocess.Popen[bytes] | None = None
        self._kills: OomKillCounter | None = None
        self._gone = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def adopt(self) -> bool:
        """Watch a trainer that another supervisor started, if one lives: it holds its lock and wrote who it is."""
        for _ in range(round(NAMING_PATIENCE / LOOK)):
            if not is_locked(self._run.trainer_lock):
                return False
            who = read_json(self._run.trainer_identity_path)
            if is_alive(who):
                self._watch(who)
                return True
            await asyncio.sleep(LOOK)
        return False

    def start(self, argv: Sequence[str], attempt: int, env: Mapping[str, str], keep: Sequence[int]) -> None:
        """Start ``argv``. Raises ``OSError`` where the machine has no room for a process."""
        self._child = spawn_detached(argv, self._run.console_path, self._run.path, env, keep)
        if sys.platform == "darwin":  # a Mac would fall asleep over a run that nobody touches
            awake = ["caffeinate", "-i", "-w", str(self._child.pid)]
            spawn_detached(awake, self._run.console_path, self._run.path)
        self._watch({**process_identity(self._child.pid), "attempt": attempt})

    async def ended(self) -> ExitReason:
        """Wait for its end; what the kernel says of it."""
        await self._gone.wait()
        child, self._child, who, self.who = self._child, None, self.who, None
        own = child is not None and who is not None and child.pid == who["pid"]
        code = await asyncio.to_thread(child.wait) if own and child is not None else None
        return death(code, self._kills, self._run.console_path)

    def kill(self, launched: bool) -> None:
        """End it without a word to say; where it was ``launched`` by another program also that, and so all ranks."""
        _kill(read_json(self._run.trainer_identity_path))
        if launched:
            self.end_launcher()
        elif self.who is not None:
            _kill(self.who)  # it may have no name yet

    def end_launcher(self) -> None:
        """End the launcher of ranks that have not met yet: nothing has begun, so nothing is lost."""
        if self._child is not None:
            task = asyncio.create_task(self._end_group(self._child.pid))  # it leads a session of its own
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _end_group(self, leader: int) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(leader, number)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._gone.wait(), LAUNCHER_PATIENCE)
                return

    def _watch(self, who: dict[str, Any]) -> None:
        """Learn of the process's death by its pidfd, or by looking, where the platform has none."""
        self.who = who
        self._kills = OomKillCounter(who["pid"])
        self._gone.clear()
        try:
            pidfd = os.pidfd_open(who["pid"])
        except (AttributeError, OSError):
            task = asyncio.create_task(self._watch_by_looking(who))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        loop = asyncio.get_running_loop()

        def died() -> None:
            loop.remove_reader(pidfd)
            os.close(pidfd)
            self._gone.set()

        loop.add_reader(pidfd, died)

    async def _watch_by_looking(self, who: dict[str, Any]) -> None:
        while is_alive(who):
            await asyncio.sleep(4 * LOOK)
        self._gone.set()


def _kill(who: dict[str, Any]) -> None:
    """SIGKILL to the very process ``who`` names: a pid alone might by now be a stranger's, a pidfd is not."""
    with contextlib.suppress(OSError):
        pidfd = os.pidfd_open(int(who.get("pid", 0)))
        try:
            if is_alive(who):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)
