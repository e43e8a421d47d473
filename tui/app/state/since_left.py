"""Remembers when a user last looked at a run, and says what has happened since."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

from msgspec import Struct

from engine.events.numbers import Count, Number
from engine.host.struct_json import read_struct, write_struct
from tui.text import format as fmt

if TYPE_CHECKING:
    from engine.events.run_dir import RunDir
    from tui.app.state.run_view import RunView

FILE = "viewed.json"
_SHORT = 60.0  # seconds; who comes back sooner has missed nothing
_EVENTS = {"edit": "edit", "oom": "out of memory", "checkpoint": "checkpoint", "start": "restart", "rewind": "rewind"}


class _Viewed(Struct, frozen=True):
    """What a user has seen of a run."""

    t: Number  # unix seconds
    step: Count
    loss: Number | None = None  # smoothed


def remember(run: RunDir, view: RunView, now: float) -> None:
    """Store what the user has seen; nothing if it cannot be written, because the run does not depend on it."""
    with suppress(OSError):
        write_struct(run.path / FILE, _Viewed(now, view.step, view.smooth_loss))


def describe(run: RunDir, view: RunView, now: float) -> str:
    """Return steps, loss and events since the user left; empty if nothing has happened, or there is no record of it."""
    left = read_struct(run.path / FILE, _Viewed)
    if left is None or abs(now - left.t) < _SHORT or view.step <= left.step:
        return ""
    set_back = now < left.t  # the clock: then only steps say what came later
    parts = [f"steps {fmt.exact(left.step)} to {fmt.exact(view.step)}"]
    if left.loss is not None and view.smooth_loss is not None:
        parts.append(f"smooth loss {fmt.loss(left.loss)} → {fmt.loss(view.smooth_loss)}")
    later = [m for m in view.marks.to_list() if (m.step > left.step if set_back else m.t > left.t)]
    counts = Counter(_EVENTS[mark.kind] for mark in later if mark.kind in _EVENTS)
    parts += [f"{count} × {name}" for name, count in counts.items()]
    ago = "" if set_back else f" {fmt.rough_duration(now - left.t)} ago"
    return f"since you left{ago}: {', '.join(parts)}"
