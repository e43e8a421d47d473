"""What happens to runs nobody is looking at: ends, failures, want of memory, NaN, stalls.

The logs are the truth, so they are what is looked at: one ``stat`` a run, and of a log that grew the new lines are
searched for the few kinds that matter; only those are parsed.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.events.log import MAX_LINE, parse
from engine.events.run_dir import RunDir
from engine.events.summary import CUT_OFF, ENDED
from engine.runs.store import RunStore
from profiles.errors import UserError
from tui.text.event_text import describe

POLL_INTERVAL = 2.0  # seconds between two looks
SILENCE_TIMEOUT = 60.0  # seconds without a record after which a run's processes are looked for
_NEEDLES = (b'"kind":"state"', b'"kind":"oom"', b'"kind":"alert"')
_ALERTS = ("nan", "stall")


@dataclass(frozen=True, slots=True)
class RunNotification:
    """One line about a run; ``needs_attention`` if a user has to act."""

    run_id: str
    text: str
    needs_attention: bool


@dataclass(slots=True)
class _Followed:
    at: int  # the log is known up to here
    living: bool = False  # it has grown since we look, and has not ended
    asked: float = field(default_factory=time.monotonic)  # when it last grew, or was last asked after


class RunWatcher:
    """Follows the logs of every run of ``store`` from now on. Blocks on the disk: not for the event loop."""

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._runs = str(store.runs)
        self._changed: int | None = None  # when the list of runs last did
        self._followed: dict[str, _Followed] = {}

    def poll(self) -> list[RunNotification]:
        """What has happened since the last look; nothing the first time."""
        self._list()
        news: list[RunNotification] = []
        for id, run in self._followed.items():
            try:
                news += self._look_at(id, run)
            except OSError:
                continue  # no log yet, or removed at any moment: the list will say
        return news

    def _look_at(self, id: str, run: _Followed) -> list[RunNotification]:
        size = os.stat(f"{self._runs}/{id}/events.jsonl").st_size
        if size != run.at:
            return self._read(id, run, size)
        if run.living and time.monotonic() - run.asked >= SILENCE_TIMEOUT:
            return self._ask_after(id, run)
        return []

    def _list(self) -> None:
        """Follow the runs there are. A run that came since the last look is told from its beginning."""
        try:
            changed = os.stat(self._runs).st_mtime_ns
            if changed == self._changed:
                return
            ids = self._store.ids()
        except (OSError, UserError):
            self._changed = self._changed or 0
            return
        first, self._changed = self._changed is None, changed
        self._followed = {id: self._followed.get(id) or _Followed(self._end(id) if first else 0) for id in ids}

    def _end(self, id: str) -> int:
        try:
            return os.stat(f"{self._runs}/{id}/events.jsonl").st_size
        except OSError:
            return 0

    def _read(self, id: str, run: _Followed, size: int) -> list[RunNotification]:
        run.living, run.asked = True, time.monotonic()
        run.at = min(run.at, size)  # a log that shrank is another one
        records, run.at = _since(self._store.runs / id / "events.jsonl", run.at)
        news = []
        for record in records:
            if record["kind"] == "state":
                run.living = record.get("phase") not in ENDED
            if text := _told(record):
                news.append(RunNotification(id, f"{self._name(id)}: {text}", _is_bad(record)))
        return news

    def _ask_after(self, id: str, run: _Followed) -> list[RunNotification]:
        """A run without a trace of life: were its processes killed, no record says so."""
        run.asked = time.monotonic()
        summary = RunDir(self._store.runs / id).summary()
        if summary["phase"] != CUT_OFF:
            return []
        run.living = False
        return [RunNotification(id, f"{self._name(id)}: {CUT_OFF}: {summary['reason']}", True)]

    def _name(self, id: str) -> str:
        return RunDir(self._store.runs / id).name


def _since(path: Path, at: int) -> tuple[list[dict[str, Any]], int]:
    """The records of the kinds that matter from offset ``at`` on, and where whole lines end."""
    records = []
    with path.open("rb", buffering=0) as log:
        while data := os.pread(log.fileno(), MAX_LINE, at):
            end = data.rfind(b"\n") + 1 or (len(data) if len(data) == MAX_LINE else 0)
            if not end:
                break
            if any(needle in data for needle in _NEEDLES):
                lines = (line for line in data[:end].splitlines() if any(needle in line for needle in _NEEDLES))
                records += [record for line in lines if (record := parse(line)) is not None]
            at += end
    return records, at


def _told(record: dict[str, Any]) -> str:
    """What is announced of a record; nothing for most."""
    kind = record["kind"]
    if kind == "oom":
        return "out of memory, waits for an answer" if record.get("action") == "ask" else ""
    worth = record.get("phase") in ENDED if kind == "state" else record.get("what") in _ALERTS
    told = describe(record) if worth else None
    return told[0] if told else ""


def _is_bad(record: dict[str, Any]) -> bool:
    return record["kind"] != "state" or record.get("phase") == "failed"
