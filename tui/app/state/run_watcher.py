"""Reports what happens to runs that are not on screen: ends, failures, out of memory, NaN, stalls.

It polls the logs with one ``stat`` per run. In a log that grew, it searches the new lines for the few kinds that matter
and parses only those.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from engine.events.decode import decode
from engine.events.log import MAX_LINE, needles
from engine.events.phases import CUT_OFF, NEEDS_ATTENTION, has_ended, phase_of
from engine.events.run_dir import RunDir
from engine.events.types import Alert, Event, Oom, State
from engine.runs.store import RunStore
from profiles.errors import UserError
from profiles.reader import open_regular
from tui.text.event_text import describe

POLL_INTERVAL = 2.0  # seconds
SILENCE_TIMEOUT = 2.0  # seconds without a record after which a run's processes are checked
_NEEDLES = needles(State, Oom, Alert)
_ALERTS = ("nan", "stall")


@dataclass(frozen=True, slots=True)
class RunNotification:
    """One line about a run; ``needs_attention`` if a user has to act."""

    run_id: str
    text: str
    needs_attention: bool


@dataclass(slots=True)
class _TailState:
    offset: int  # the log has been read up to here
    active: bool = False  # it has grown since the watcher started, and has not ended
    checked: float = field(default_factory=time.monotonic)  # when it last grew, or its processes were checked


class RunWatcher:
    """Follows the logs of all runs in ``store`` from now on. Blocks on file reads: do not call from the event loop."""

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._runs = str(store.runs)
        self._listed: int | None = None  # modification time of the directory when it was listed
        self._tails: dict[str, _TailState] = {}

    def poll(self) -> list[RunNotification]:
        """Return what has happened since the last call; nothing the first time."""
        self._list_runs()
        notifications: list[RunNotification] = []
        for id, tail in self._tails.items():
            try:
                notifications += self._poll_run(id, tail)
            except OSError:
                continue  # no log yet, or just removed: the next listing will show
        return notifications

    def _poll_run(self, id: str, tail: _TailState) -> list[RunNotification]:
        size = os.stat(f"{self._runs}/{id}/events.jsonl").st_size
        if size != tail.offset:
            return self._read(id, tail, size)
        if tail.active and time.monotonic() - tail.checked >= SILENCE_TIMEOUT:
            return self._check_processes(id, tail)
        return []

    def _list_runs(self) -> None:
        """Update the followed runs. A run created since the last call is read from its beginning."""
        try:
            modified = os.stat(self._runs).st_mtime_ns
            if modified == self._listed:
                return
            ids = self._store.ids()
        except (OSError, UserError):
            self._listed = self._listed or 0
            return
        first, self._listed = self._listed is None, modified
        self._tails = {id: self._tails.get(id) or _TailState(self._log_size(id) if first else 0) for id in ids}

    def _log_size(self, id: str) -> int:
        try:
            return os.stat(f"{self._runs}/{id}/events.jsonl").st_size
        except OSError:
            return 0

    def _read(self, id: str, tail: _TailState, size: int) -> list[RunNotification]:
        tail.active, tail.checked = True, time.monotonic()
        tail.offset = min(tail.offset, size)  # a log that shrank was replaced
        events, tail.offset = _events_from(self._store.runs / id / "events.jsonl", tail.offset)
        notifications = []
        for event in events:
            if isinstance(event, State):
                tail.active = not has_ended(event.phase)
            if text := _notification_text(event):
                notifications.append(RunNotification(id, f"{self._name(id)}: {text}", _needs_attention(event)))
        return notifications

    def _check_processes(self, id: str, tail: _TailState) -> list[RunNotification]:
        """Check a silent run: if its processes were killed, no record says so."""
        tail.checked = time.monotonic()
        summary = RunDir(self._store.runs / id).summary()
        if summary.phase != CUT_OFF:
            return []
        tail.active = False
        return [RunNotification(id, f"{self._name(id)}: {CUT_OFF}: {summary.reason}", True)]

    def _name(self, id: str) -> str:
        return RunDir(self._store.runs / id).name


def _events_from(path: Path, offset: int) -> tuple[list[Event], int]:
    """Return the events of the kinds that matter from ``offset`` on, and the offset after the last complete line."""
    events = []
    with open_regular(path) as log:
        while data := os.pread(log.fileno(), MAX_LINE, offset):
            end = data.rfind(b"\n") + 1 or (len(data) if len(data) == MAX_LINE else 0)
            if not end:
                break
            if any(needle in data for needle in _NEEDLES):
                lines = (line for line in data[:end].splitlines() if any(needle in line for needle in _NEEDLES))
                events += [event for line in lines if (event := decode(line)) is not None]
            offset += end
    return events, offset


def _notification_text(event: Event) -> str:
    """Return the text to show for an event; empty for most."""
    match event:
        case Oom():
            return "out of memory, needs attention" if event.action == "ask" else ""
        case State() if not has_ended(event.phase) and event.phase != NEEDS_ATTENTION:
            return ""
        case Alert() if event.what not in _ALERTS:
            return ""
    sentence = describe(event)
    return sentence[0] if sentence else ""


def _needs_attention(event: Event) -> bool:
    return not isinstance(event, State) or phase_of(event.phase).needs_attention
