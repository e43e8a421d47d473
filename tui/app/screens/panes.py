"""What the panes of the monitor show: titles, lines and capacities from what is known of a run.

Four: loss, VRAM, RAM offload, tokens/s. Three where device and host share one memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tui.app.state.run_view import RunView
from tui.app.state.viewport import Viewport
from tui.app.widgets.chart import Chart, Line, Mark
from tui.text import event_text
from tui.text import format as fmt

SMOOTHINGS = ((0.0, ""), (0.6, "smooth"), (0.95, "very smooth"))
# kind of mark → its character and style; where several fall into one cell the later kind is seen
MARKS = {
    "checkpoint": ("▪", "chart--event"),
    "edit": ("▲", "chart--event-good"),
    "start": ("↻", "chart--event-warn"),
    "rewind": ("«", "chart--event-warn"),
    "alert": ("∅", "chart--event-bad"),
    "oom": ("×", "chart--event-bad"),
}


def make(view: RunView) -> list[Chart]:
    """The charts in the order of their number keys."""
    if view.unified_memory:
        memories = [_memory_chart("unified memory", 2, time_axis=False)]
    else:
        memories = [_memory_chart("VRAM", 2), _memory_chart("RAM offload", 3)]
    speed = Chart("tokens/s", id=f"pane-{len(memories) + 2}", y_text=fmt.axis, from_zero=True)
    return [Chart("loss", id="pane-1"), *memories, speed]


def _memory_chart(title: str, number: int, time_axis: bool = True) -> Chart:
    return Chart(
        title, id=f"pane-{number}", time_axis=time_axis, y_text=_short_size, y_unit=fmt.size_unit, from_zero=True
    )


def _shorter(value: float | None) -> str:
    """A size where a title has few cells: ``23.5G``."""
    return "–" if value is None else _short_size(value, digits=3)


def _short_size(value: float, digits: int = 4) -> str:
    """A tick in the cells of an axis: ``1.5G``."""
    if not value:
        return "0"
    unit = fmt.size_unit(abs(value))
    for bytes_, letter in ((1024.0**4, "T"), (1024.0**3, "G"), (1024.0**2, "M"), (1024.0, "K")):
        if unit >= bytes_:
            return f"{value / bytes_:.{digits}g}{letter}"
    return f"{value:.0f}"


def fill(panes: list[Chart], viewport: Viewport, notes: str = "") -> None:
    """Show the run as the viewport sees it; ``notes`` says how the loss is drawn."""
    steps, times = viewport.visible_steps(), viewport.visible_times()
    cursor = None if viewport.cursor is None else (float(viewport.cursor), viewport.time_of(viewport.cursor))
    for pane in panes:
        pane.x_range = times if pane.time_axis else steps
        pane.cursor = None if cursor is None else cursor[pane.time_axis]
    loss, *memories, speed = panes
    _loss(loss, viewport, notes)
    for pane, show in zip(memories, (_unified,) if viewport.view.unified_memory else (_device, _host), strict=True):
        show(pane, viewport)
    _speed(speed, viewport)


def value_at(viewport: Viewport, name: str, text: Callable[[float | None], str]) -> list[str]:
    """What a series was at the cursor, with its extremes where its bucket holds several values, longest first."""
    point = viewport.bucket_at_cursor(name)
    if point is None or point[2] is None:
        return [fmt.NOTHING]
    _, low, mean, high = point
    if low == high:
        return [text(mean)]
    return [f"{text(mean)} ({text(low)} to {text(high)})", text(mean)]


def _at_cursor(viewport: Viewport, label: str, name: str, text: Callable[[float | None], str]) -> list[str]:
    assert viewport.cursor is not None
    step = fmt.exact(viewport.cursor)
    values = value_at(viewport, name, text)
    return [
        *(f"{label} {value} · at step {step}" for value in values),
        *(f"{label} {value} @{step}" for value in values),
        f"{label} {values[-1]}",
    ]


def _loss(pane: Chart, viewport: Viewport, notes: str) -> None:
    view = viewport.view
    covered, value = view.series["loss"].coverage(), view.last("loss")
    seen = viewport.visible_steps()
    if covered is None:
        titles = ["loss · no steps yet"]
    elif viewport.cursor is not None:
        titles = _at_cursor(viewport, "loss", "loss", fmt.loss)
    else:
        first, last, steps = covered
        now = fmt.loss(value) if value is not None else "not finite"
        plain = [f"loss {now} · steps {first}–{last} ({steps})", f"loss {now} · {first}–{last} ({steps})"]
        if seen is not None:
            begin, end = (fmt.exact(max(step, 0)) for step in seen)
            newest = f"newest {fmt.exact(seen[1] - seen[0])} steps"
            which = newest if viewport.follows_newest() else f"steps {begin}–{end}"
            plain = [f"loss {now} · {which} of {fmt.exact(last)}", f"loss {now} · {which}", f"loss {now}"]
        else:
            plain.append(f"loss {now} ({steps})")
        titles = [title + notes for title in plain] + plain
    lines = [Line(viewport.points("loss"), "chart--line"), Line(viewport.points("val_loss"), "chart--mark", mark="◆")]
    pane.show(titles, lines, x_end=view.steps, marks=_marks(view))


def _marks(view: RunView) -> list[Mark]:
    order = list(MARKS)
    known = [mark for mark in view.marks.to_list() if mark["kind"] in MARKS]
    return [Mark(mark["step"], *MARKS[mark["kind"]]) for mark in sorted(known, key=lambda m: order.index(m["kind"]))]


def _device(pane: Chart, viewport: Viewport) -> None:
    view = viewport.view
    if view.has_device:
        used, total = view.last("device_used"), view.last("device_total")
        lines = [Line(viewport.points("device_used"), "chart--line")]
        titles = [f"VRAM {fmt.size_of(used, total)}", f"VRAM {fmt.size(used)}"]
        busy = card(view)
        titles = _at_cursor(viewport, "VRAM", "device_used", fmt.size) if viewport.cursor is not None else titles
        titles = [f"{titles[0]} · {busy}", *titles] if busy and viewport.cursor is None else titles
        pane.show(titles, lines, y_top=total, limit=total, notes=_parts(view))
    else:
        now = fmt.size(view.last("rss"))
        titles = [f"no GPU · process memory {now}", f"no GPU · process {now}"]
        if viewport.cursor is not None:
            titles = _at_cursor(viewport, "process memory", "rss", fmt.size)[:-1] + _at_cursor(
                viewport, "process", "rss", fmt.size
            )
        pane.show(titles, [Line(viewport.points("rss"), "chart--line")], notes=_parts(view))


def card(view: RunView) -> str:
    """How busy, how warm the card is and what it draws, as far as it tells."""
    util, watts, degrees = (view.last(name) for name in ("device_util", "power_w", "temp_c"))
    facts = [
        "" if util is None else f"{util:.0f}% busy",
        "" if watts is None else f"{watts:.0f} W",
        "" if degrees is None else f"{degrees:.0f} °C",
    ]
    return " · ".join(fact for fact in facts if fact)


def _parts(view: RunView) -> list[str]:
    """What the forecast says the memory is for, as much of it as fits."""
    parts: dict[str, Any] = view.memory.get("parts") or {}
    told = event_text.describe_parts(parts).split(" · ")
    if not told[0]:
        return []
    return [
        f"forecast: {' · '.join(told[:count])}{' …' if count < len(told) else ''}" for count in range(len(told), 0, -1)
    ]


def _host(pane: Chart, viewport: Viewport) -> None:
    view = viewport.view
    states, used, total = fmt.size(view.last("host_states") or 0), view.last("ram_used"), view.last("ram_total")
    lines = [Line(viewport.points("ram_used"), "chart--line")]
    if view.last("host_states"):
        lines.append(Line(view.offloaded.points, "chart--second"))
    titles = [f"RAM offload {states} · {fmt.size_of(used, total)}", f"RAM {states} · {fmt.size_of(used, total)}"]
    titles.append(f"RAM offload {states}")
    if viewport.cursor is not None:
        titles = _at_cursor(viewport, "RAM in use", "ram_used", fmt.size) + _at_cursor(
            viewport, "RAM", "ram_used", fmt.size
        )
    pane.show(titles, lines, y_top=total, limit=total)


def _unified(pane: Chart, viewport: Viewport) -> None:
    view = viewport.view
    active, cache, peak, limit = (view.last(f"unified_{name}") for name in ("active", "cache", "peak", "limit"))
    lines = [
        Line(viewport.points("unified_peak"), "chart--line"),
        Line(viewport.points("unified_active"), "chart--second"),
    ]
    of_limit = fmt.size_of(peak, limit)
    watts = view.last("power_w")
    titles = [
        f"unified memory peak {of_limit} · active {fmt.size(active)} · cache {fmt.size(cache)}",
        f"peak {of_limit} · active {fmt.size(active)} · cache {fmt.size(cache)}",
        f"peak {_shorter(peak)}/{_shorter(limit)} active {_shorter(active)} cache {_shorter(cache)}",
        f"peak {of_limit}",
    ]
    if viewport.cursor is not None:
        titles = _at_cursor(viewport, "peak", "unified_peak", fmt.size)
    elif watts is not None:
        titles.insert(0, f"{titles[0]} · {watts:.0f} W")
    pane.show(titles, lines, x_end=view.steps, limit=limit, notes=_parts(view))


def _speed(pane: Chart, viewport: Viewport) -> None:
    view = viewport.view
    now, share = fmt.exact(view.last("tok_s")), view.last("mfu")
    titles = [f"tokens/s {now}"]
    if viewport.cursor is not None:
        titles = _at_cursor(viewport, "tokens/s", "tok_s", fmt.exact)
    elif share is not None:
        titles.insert(0, f"tokens/s {now} · {share:.0%} of the device's ceiling")
    pane.show(titles, [Line(viewport.points("tok_s"), "chart--line")], x_end=view.steps)
