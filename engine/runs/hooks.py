"""Commands of a person's own that are run when something happens to a run.

``hooks.toml`` is read when the event happens, so a hook can be mended while a run lives for weeks. The log is the
queue's memory: ``hooks_at`` in the run's state is the offset up to which hooks were run, so that a supervisor that dies
between a record and its hook does not lose it (it may then be run twice), and another does not begin with the past.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from engine.events.log import Record, read_all
from engine.events.run_dir import RunDir
from engine.events.summary import EVENTS
from engine.host.private_dirs import private_opener
from engine.host.process import host_name
from profiles.errors import SpecError

LAST = ("finished", "failed")  # of a run: never left out
TIME_LIMIT = 60.0  # seconds
WAITING = 16  # hooks that may wait for those before them; of what comes beyond, only the last events are kept
FILE = "hooks.toml"


class Write(Protocol):
    """How a record gets into the run's log."""

    def __call__(self, kind: str, **fields: Any) -> object: ...


def hooks_path() -> Path:
    config = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(config).expanduser() / "mla-tui" / FILE


def load() -> dict[str, str]:
    """The command for each event that has one. Raises ``SpecError`` naming file, key, value and the way out."""
    path = hooks_path()
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read: {error}") from None
    except ValueError as error:
        raise SpecError(f"{path}: not valid TOML: {error}") from None
    for key in raw:
        if key != "on_event":
            raise SpecError(f"{path}: {key}: unknown; commands stand in the table [on_event]")
    table = raw.get("on_event", {})
    if not isinstance(table, dict):
        raise SpecError(f'{path}: on_event: {table!r} is not a table; write [on_event] and finished = "a command"')
    for key, command in table.items():
        if key not in EVENTS:
            from difflib import get_close_matches

            near = get_close_matches(key, EVENTS, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(EVENTS)}"
            raise SpecError(f"{path}: on_event.{key}: unknown event; {hint}")
        if not isinstance(command, str) or not command.strip():
            raise SpecError(f"{path}: on_event.{key}: {command!r} is not a command; write a line for sh, in quotes")
    return table


def event_of(record: Record) -> str | None:
    """The event a record is, or None."""
    kind = record.get("kind")
    name = {"state": record.get("phase"), "alert": record.get("what"), "oom": "oom"}.get(str(kind))
    told_by = {"finished": "state", "failed": "state", "nan": "alert", "stall": "alert", "oom": "oom"}
    return str(name) if told_by.get(str(name)) == kind else None


def payload(run_id: str, name: str, event: str, record: Record) -> Record:
    """What a hook reads: the record, and whose it is."""
    return {**record, "run": run_id, "name": name, "host": host_name(), "event": event}


async def run_hook(command: str, content: Record, out: int, cwd: Path, limit: float = TIME_LIMIT) -> str | None:
    """Run ``command`` by ``sh`` with ``content`` as JSON on its stdin and its output to ``out``.

    It leads a session of its own, whose processes are all ended when it takes longer than ``limit`` seconds. Returns
    why it failed, or None.
    """
    facts = {f"MLA_TUI_{key.upper()}": str(content[key]) for key in ("run", "name", "host", "event")}
    try:
        process = await asyncio.create_subprocess_exec(
            *("/bin/sh", "-c", command),
            cwd=cwd,
            env={**os.environ, **facts},
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    except OSError as error:
        return f"could not be started: {error.strerror}"
    try:
        await asyncio.wait_for(process.communicate(json.dumps(content).encode() + b"\n"), limit)
    except TimeoutError:
        return f"was ended: it took more than {limit:g} s"
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    code = process.returncode or 0
    return None if code == 0 else f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"


class Hooks:
    """Runs the hooks of one run, one after another, beside everything else its supervisor does.

    ``summary`` is the run's state, in which ``hooks_at`` is kept; ``save`` writes it down.
    """

    def __init__(self, run: RunDir, summary: dict[str, Any], write: Write, save: Callable[[], None]) -> None:
        self._run_dir, self._summary, self._write, self._save = run, summary, write, save
        self._waiting: list[tuple[int, str, Record]] = []
        self._task: asyncio.Task[None] | None = None
        self._dropped = False

    def catch_up(self, end: int) -> None:
        """Take what a dead supervisor left undone before offset ``end``; nothing of a run that knows no hooks yet."""
        start = self._summary.setdefault("hooks_at", end)
        for at, record in read_all(self._run_dir.log_path, start):
            if at >= end:
                break
            self.take(at, record)

    def take(self, at: int, record: Record) -> None:
        """Run the record's hook, if there is one, when those before it are done. Returns at once."""
        if at < self._summary.get("hooks_at", 0):
            return
        event = event_of(record)
        if event is None or self._left_out(event):
            if not self._busy():
                self._summary["hooks_at"] = at
            return
        self._waiting.append((at, event, record))
        if not self._busy():
            self._task = asyncio.create_task(self._work())

    async def finish(self) -> None:
        """Return when every hook that was due has been run."""
        while self._task is not None and not self._task.done():
            await self._task

    def _busy(self) -> bool:
        return self._task is not None and not self._task.done()

    def _left_out(self, event: str) -> bool:
        """Whether so many hooks wait already that this one is not worth its wait; said once."""
        full = len(self._waiting) >= WAITING and event not in LAST
        if full and not self._dropped:
            self._warn(event, f"is left out: {WAITING} hooks wait for those before them")
        self._dropped = full
        return full

    async def _work(self) -> None:
        while self._waiting:
            at, event, record = self._waiting[0]
            try:
                await self._run(event, {**record, "at": at})
            except Exception as error:  # whatever it is: a hook never ends the supervisor
                self._warn(event, f"{type(error).__name__}: {error}")
            del self._waiting[0]
            self._summary["hooks_at"] = at + 1  # within that line: what is left of it parses as no record
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
            self._warn(event, f"{why}; its output stands in {self._run_dir.console_path}")

    def _warn(self, event: str, text: str) -> None:
        self._write("log", level="warn", text=f"hook {event}: {text}", rank=None)


def has_pending(run: RunDir) -> bool:
    """Whether a hook of ``run`` was not run because its supervisor died before it could."""
    start = run.state().get("hooks_at")
    return start is not None and any(event_of(record) for _, record in read_all(run.log_path, start))
