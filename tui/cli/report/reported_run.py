"""Reads a run's log once for a report: its series, its marks, and everything that happened to it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from engine.events.history import History
from engine.events.log import Tail
from engine.events.marks import Mark
from engine.events.metrics import BY_STEP
from engine.events.run_dir import RunDir
from engine.events.series import Point
from engine.events.status import Summary
from engine.events.types import Alert, Edit, Event, Exit, Oom, Rewind, Start, State
from tui.app.state.spec_diff import compared_spec

MAX_INCIDENTS = 200  # the first and the newest of them; a run in a crash loop may have thousands


@dataclass(frozen=True, slots=True)
class ReportedRun:
    """``spec``: dotted key to value; ``start``: the newest start record;
    ``incidents``: edits, restarts and errors in their order, ``left_out`` others between them not included."""

    letter: str
    summary: Summary
    spec: dict[str, Any]
    series: dict[str, list[Point]]
    marks: list[Mark]
    start: Start | None
    incidents: list[Event]
    left_out: int

    @property
    def name(self) -> str:
        return self.summary.name or self.summary.id


def read_run(letter: str, run: RunDir) -> ReportedRun:
    """Return what a report says of ``run``, up to the end of its log now."""
    history, incidents, newest = History(run.log_path, BY_STEP), _Incidents(), None
    tail = Tail(run.log_path)
    try:
        while events := tail.poll():
            history.add_events(events)
            for _, event in events:
                if isinstance(event, Start):
                    newest = event
                if _is_incident(event):
                    incidents.add(event)
    finally:
        tail.close()
    series = {name: list(one.points) for name, one in history.series.items() if len(one)}
    marks = [mark for mark in history.marks.to_list() if mark.kind != "checkpoint"]
    return ReportedRun(
        letter, run.summary(), compared_spec(run), series, marks, newest, incidents.all(), incidents.left_out
    )


class _Incidents:
    """Keeps the first and the newest half of ``MAX_INCIDENTS`` events."""

    def __init__(self) -> None:
        self._first: list[Event] = []
        self._newest: deque[Event] = deque(maxlen=MAX_INCIDENTS // 2)
        self.left_out = 0

    def add(self, event: Event) -> None:
        if len(self._first) < MAX_INCIDENTS // 2:
            self._first.append(event)
            return
        self.left_out += len(self._newest) == self._newest.maxlen
        self._newest.append(event)

    def all(self) -> list[Event]:
        return [*self._first, *self._newest]


def _is_incident(event: Event) -> bool:
    """Return whether the event belongs to the story of a run: not its steps, checkpoints and measurements."""
    match event:
        case Edit() | Oom() | Rewind() | Alert() | Start() | State(reason=str()):
            return True
        case Exit():
            return event.code != 0
    return False
