"""Runs the user's own commands when something happens to a run.

``hooks.toml`` is read when the event happens, so a hook can be fixed during a run of weeks. Pending hooks are kept by
the log: ``hooks_at`` in the run's state is the offset up to which hooks were run. A supervisor killed between a record
and its hook does not lose the hook (it may then run twice), and its successor does not repeat earlier ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.events.log import read_all
from engine.events.phases import FAILED, FINISHED, NEEDS_ATTENTION
from engine.events.run_dir import RunDir
from engine.events.status import RunStatus
from engine.events.types import Alert, Event, Log, Oom, State
from engine.host.private_dirs import private_opener
from engine.host.process import host_name
from engine.host.struct_json import to_dict
from engine.runs.hook_events import EVENTS
from profiles.errors import SpecError
from profiles.paths import user_dir
from profiles.printable import LONGEST_KEY, brief, brief_key
from profiles.reader import read_toml

KEPT = (FINISHED, FAILED, NEEDS_ATTENTION)  # never dropped
TIMEOUT = 60.0  # seconds
MAX_PENDING = 16  # hooks in the queue; beyond it only those of KEPT are added
FILE = "hooks.toml"


Write = Callable[[Event], object]
"""Appends an event to the run's log."""


def hooks_path() -> Path:
    return user_dir("XDG_CONFIG_HOME", "~/.config") / "mla-tui" / FILE


def load() -> dict[str, str]:
    """Return event → command. Raises ``SpecError`` that names file, key, value and a fix."""
    path = hooks_path()
    try:
        raw = read_toml(path)
    except FileNotFoundError:
        return {}
    for key in raw:
        if key != "on_event":
            raise SpecError(f"{path}: {brief_key(key)}: unknown; commands belong in the table [on_event]")
    table = raw.get("on_event", {})
    if not isinstance(table, dict):
        raise SpecError(f'{path}: on_event: {brief(table)} is not a table; write [on_event] and finished = "a command"')
    for key, command in table.items():
        if key not in EVENTS:
            from difflib import get_close_matches

            near = get_close_matches(key[:LONGEST_KEY], EVENTS, 1)
            hint = f"did you mean {near[0]}?" if near else f"the events are {', '.join(EVENTS)}"
            raise SpecError(f"{path}: on_event.{brief_key(key)}: unknown event; {hint}")
        if not isinstance(command, str) or not command.strip() or "\0" in command:
            raise SpecError(
                f"{path}: on_event.{key}: {brief(command)} is not a command; write a shell command in quotes"
            )
    return table


def name_of(event: Event) -> str | None:
    """Return the name by which a user configures a command for an event, or None."""
    match event:
        case State(phase="finished" | "failed" | "needs-attention" as name) | Alert(what="nan" | "stall" as name):
            return name
        case Oom():
            return "oom"
    return None


def payload(run_id: str, run_name: str, name: str, event: Event, at: int | None = None) -> dict[str, Any]:
    """Return what a hook reads on stdin: the record, its offset ``at`` in the log, and the run it belongs to."""
    offset = {} if at is None else {"at": at}
    return {**to_dict(event), **offset, "run": run_id, "name": run_name, "host": host_name(), "event": name}


async def run_hook(command: str, content: dict[str, Any], out: int, cwd: Path, timeout: float = TIMEOUT) -> str | None:
    """Run ``command`` by ``sh`` with ``content`` as JSON on stdin and its output to ``out``.

    It leads its own session; after ``timeout`` seconds every process of it is killed. Returns why it failed, or
    None.
    """
    variables = {f"MLA_TUI_{key.upper()}": str(content[key]) for key in ("run", "name", "host", "event")}
    try:
        process = await asyncio.create_subprocess_exec(
            *("/bin/sh", "-c", command),
            cwd=cwd,
            env={**os.environ, **variables},
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    except OSError as error:
        return f"could not be started: {error.strerror}"
    try:
        await asyncio.wait_for(process.communicate(json.dumps(content).encode() + b"\n"), timeout)
    except TimeoutError:
        return f"was killed: it took more than {timeout:g} s"
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    code = process.returncode or 0
    return None if code == 0 else f"was killed (signal {-code})" if code < 0 else f"exited with code {code}"


class Hooks:
    """Runs the hooks of one run, one after another, in the background of its supervisor.

    ``state`` is that of the run, which holds ``hooks_at``; ``save`` writes it to disk.
    """

    def __init__(self, run: RunDir, state: RunStatus, write: Write, save: Callable[[], None]) -> None:
        self._run_dir, self._state, self._write, self._save = run, state, write, save
        self._pending: list[tuple[int, str, Event]] = []
        self._task: asyncio.Task[None] | None = None
        self._dropping = False

    def catch_up(self, end: int) -> None:
        """Enqueue what a killed supervisor left pending before offset ``end``; nothing without ``hooks_at``."""
        start = self._state.hooks_at
        if start is None:
            start = self._state.hooks_at = end
        for at, event in read_all(self._run_dir.log_path, start):
            if at >= end:
                break
            self.enqueue(at, event)

    def enqueue(self, at: int, event: Event) -> None:
        """Run the event's hook, if it has one, after those before it. Returns at once."""
        if at < (self._state.hooks_at or 0):
            return
        name = name_of(event)
        if name is None or self._is_dropped(name):
            if not self._busy():
                self._state.hooks_at = at
            return
        self._pending.append((at, name, event))
        if not self._busy():
            self._task = asyncio.create_task(self._work())

    async def finish(self) -> None:
        """Return when every pending hook has run."""
        while self._task is not None and not self._task.done():
            await self._task

    def _busy(self) -> bool:
        return self._task is not None and not self._task.done()

    def _is_dropped(self, name: str) -> bool:
        """Whether the queue is full and drops this hook; logged once."""
        full = len(self._pending) >= MAX_PENDING and name not in KEPT
        if full and not self._dropping:
            self._warn(name, f"is skipped: {MAX_PENDING} hooks are pending")
        self._dropping = full
        return full

    async def _work(self) -> None:
        while self._pending:
            at, name, event = self._pending[0]
            try:
                await self._run(at, name, event)
            except Exception as error:  # a hook must never end the supervisor
                self._warn(name, f"{type(error).__name__}: {error}")
            del self._pending[0]
            self._state.hooks_at = at + 1  # inside that line: its rest parses as no record
            self._save()

    async def _run(self, at: int, name: str, event: Event) -> None:
        try:
            command = load().get(name)
        except SpecError as error:
            return self._warn(name, str(error))
        if command is None:
            return
        with open(self._run_dir.console_path, "ab", opener=private_opener) as console:
            content = payload(self._run_dir.id, self._run_dir.name, name, event, at)
            why = await run_hook(command, content, console.fileno(), self._run_dir.path)
        if why:
            self._warn(name, f"{why}; its output is in {self._run_dir.console_path}")

    def _warn(self, name: str, text: str) -> None:
        self._write(Log(level="warning", text=f"hook {name}: {text}"))


def has_pending(run: RunDir) -> bool:
    """Whether a hook of ``run`` has not run because its supervisor was killed first."""
    start = run.state().hooks_at
    return start is not None and any(name_of(event) for _, event in read_all(run.log_path, start))
