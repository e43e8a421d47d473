"""Reads what the monitor needs of a run's files before it follows its records, and the disk of its checkpoints."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from engine.events.status import Summary
from engine.events.types import Event, RankStats
from profiles.errors import UserError
from tui.app.state.run_view import RunView

if TYPE_CHECKING:
    from engine.events.run_dir import RunDir

FIRST_LINES = 200  # lines of the log that are read when a run is opened
FIRST_BYTES = 4 << 20  # bytes of the log read for them at most
RANK_BYTES = 1 << 20  # bytes of the log in which what the ranks measured last, some 10 s ago, is looked for


def first_view(run: RunDir) -> tuple[RunView, int]:
    """Return the run as its files say, and the seconds that an out-of-memory error waits: 0 without a legible spec."""
    state = run.current_state()
    try:
        spec = run.live_spec()
    except UserError:  # reported elsewhere
        return RunView(run.summary()), 0
    live = {"train.stop_step": spec.train.stop_step, "train.save_every": spec.train.save_every}
    return RunView(run.summary(), spec.ranks, live, state.later or ()), spec.memory.oom_wait


def free_for_checkpoints(run: RunDir) -> int | None:
    """Return the bytes that are free in the folder of the run's checkpoints, or in the nearest one that exists."""
    try:
        folder = Path(run.spec().train.out).absolute()
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        return shutil.disk_usage(folder).free
    except (UserError, OSError):
        return None


def newest_events(run: RunDir, at: int) -> tuple[list[tuple[int, Event]], bool, Summary]:
    """Return the arguments of ``FirstEvents`` for the newest events before offset ``at``, and what ranks measured."""
    from engine.events.reverse_reader import events_before, newest_of

    events: list[tuple[int, Event]] = []
    begin = at
    for begin, chunk in events_before(run.log_path, at):
        events += chunk
        if len(events) >= FIRST_LINES or at - begin >= FIRST_BYTES:
            break
    ranks = newest_of(run.log_path, at, RankStats, RANK_BYTES)
    return [*([ranks] if ranks else []), *events[::-1]], begin <= 0, run.summary()
