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
from typing import Any, Protocol

from engine.events.log import Record, read_all
from engine.events.run_dir import RunDir
from engine.events.summary import HOOK_EVENTS, NEEDS_ATTENTION
from engine.host.private_dirs import private_opener
from engine.host.process import host_name
from profiles.errors import SpecError
from profiles.paths import user_dir
from profiles.printable import LONGEST_KEY, brief, brief_key
from profiles.reader import read_toml

KEPT = ("finished", "failed", NEEDS_ATTENTION)  # never dropped
TIMEOUT = 60.0  # seconds
MAX_PENDING = 16  # hooks in the queue; beyond it only those of KEPT are added
FILE = "hooks.toml"


class Write(Protocol):
    """Appends a record to the run's log."""

    def __call__(self, kind: str, **fields: Any) -> object: ...


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
        if key not in HOOK_EVENTS:
            from difflib import get_close_matches

            near = get_close_matches(key[:LONGEST_KEY], HOOK_EVENTS, 1)
            hint = f"did you mean {near[0]}?" if near else f"the events are {', '.join(HOOK_EVENTS)}"
            raise SpecError(f"{path}: on_event.{brief_key(key)}: unknown event; {hint}")
        if not isinstance(command, str) or not command.strip() or "\0" in command:
            raise SpecError(
                f"{path}: on_event.{key}: {brief(command)} is not a command; write a shell command in quotes"
            )
    return table


def event_of(record: Record) -> str | None:
    """Return the event that a record stands for, or None."""
    kind = record.get("kind")
    name = {"state": record.get("phase"), "alert": record.get("what"), "oom": "oom"}.get(str(kind))
    states, alerts = dict.fromkeys(("finished", "failed", NEEDS_ATTENTION), "state"), {"nan": "alert", "stall": "alert"}
    kind_of = {**states, **alerts, "oom": "oom"}
    return str(name) if kind_of.get(str(name)) == kind else None


def payload(run_id: str, name: str, event: str, record: Record) -> Record:
    """Return what a hook reads on stdin: the record and the run it belongs to."""
    return {**record, "run": run_id, "name": name, "host": host_name(), "event": event}


async def run_hook(command: str, content: Record, out: int, cwd: Path, timeout: float = TIMEOUT) -> str | None:
    """Run ``command`` by ``sh`` with ``content`` as JSON on stdin and its output to ``out``.

    It leads a session of its own; after ``timeout`` seconds every process of it is killed. Returns why it failed, or
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

    ``summary`` is the run's state, which holds ``hooks_at``; ``save`` writes it to disk.
    """

    def __init__(self, run: RunDir, summary: dict[str, Any], write: Write, save: Callable[[], None]) -> None:
        self._run_dir, self._summary, self._write, self._save = run, summary, write, save
        self._pending: list[tuple[int, str, Record]] = []
        self._task: asyncio.Task[None] | None = None
        self._dropping = False

    def catch_up(self, end: int) -> None:
        """Enqueue what a killed supervisor left pending before offset ``end``; nothing without ``hooks_at``."""
        start = self._summary.setdefault("hooks_at", end)
        for at, record in read_all(self._run_dir.log_path, start):
            if at >= end:
                break
            self.enqueue(at, record)

    def enqueue(self, at: int, record: Record) -> None:
        """Run the record's hook, if it has one, after those before it. Returns at once."""
        if at < self._summary.get("hooks_at", 0):
            return
        event = event_of(record)
        if event is None or self._is_dropped(event):
            if not self._busy():
                self._summary["hooks_at"] = at
            return
        self._pending.append((at, event, record))
        if not self._busy():
            self._task = asyncio.create_task(self._work())

    async def finish(self) -> None:
        """Return when every pending hook has run."""
        while self._task is not None and not self._task.done():
            await self._task

    def _busy(self) -> bool:
        return self._task is not None and not self._task.done()

    def _is_dropped(self, event: str) -> bool:
        """Whether the queue is full and drops this hook; logged once."""
        full = len(self._pending) >= MAX_PENDING and event not in KEPT
        if full and not self._dropping:
            self._warn(event, f"is skipped: {MAX_PENDING} hooks are pending")
        self._dropping = full
        return full

    async def _work(self) -> None:
        while self._pending:
            at, event, record = self._pending[0]
            try:
                await self._run(event, {**record, "at": at})
            except Exception as error:  # a hook must never end the supervisor
                self._warn(event, f"{type(error).__name__}: {error}")
            del self._pending[0]
            self._summary["hooks_at"] = at + 1  # inside that line: its rest parses as no record
            self._save()

    async def _run(self, event: str, record: Record) -> None:
        try:
            command = load().get(event)
        except SpecError as error:
            return self._warn(event, str(error))
        if command is None:
            return
        with open(self._run_dir.console_path, "ab", opener=private_opener) as console:
            content = payload(self._run_dir.id, self._run_dir.name, event, record)
            why = await run_hook(command, content, console.fileno(), self._run_dir.path)
        if why:
            self._warn(event, f"{why}; its output is in {self._run_dir.console_path}")

    def _warn(self, event: str, text: str) -> None:
        self._write("log", level="warning", text=f"hook {event}: {text}", rank=None)


def has_pending(run: RunDir) -> bool:
    """Whether a hook of ``run`` has not run because its supervisor was killed first."""
    start = run.state().get("hooks_at")
    return start is not None and any(event_of(record) for _, record in read_all(run.log_path, start))
