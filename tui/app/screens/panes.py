"""Fills the charts of the monitor: titles, lines and limits for loss, VRAM, RAM offload and tokens/s.

With unified memory there is one memory chart.
"""

from __future__ import annotations

from collections.abc import Callable

from tui.app.state.run_view import RunView
from tui.app.state.viewport import Viewport
from tui.app.widgets.chart import Chart, Line, Mark
from tui.text import event_text
from tui.text import format as fmt

SMOOTHINGS = ((0.0, ""), (0.6, "smooth"), (0.95, "very smooth"))
# kind of event → character and style of its mark; of several in one cell the last kind here is drawn
MARKS = {
    "checkpoint": ("▪", "chart--event"),
    "edit": ("▲", "chart--event-good"),
    "start": ("↻", "chart--event-warn"),
    "rewind": ("«", "chart--event-warn"),
    "alert": ("∅", "chart--event-bad"),
    "oom": ("×", "chart--event-bad"),
}


def make(view: RunView) -> list[Chart]:
    """Return the charts, in the order of their number keys."""
    if view.unified_memory:
        memories = [_memory_chart("unified memory", 2, time_axis=False)]
    else:
        memories = [_memory_chart("VRAM", 2), _memory_chart("RAM offload", 3)]
    throughput = Chart("tokens/s", id=f"pane-{len(memories) + 2}", y_text=fmt.axis, from_zero=True)
    return [Chart("loss", id="pane-1"), *memories, throughput]


def _memory_chart(title: str, number: int, time_axis: bool = True) -> Chart:
    return Chart(title, id=f"pane-{number}", time_axis=time_axis, y_text=_tick, y_unit=fmt.size_unit, from_zero=True)


def _compact(value: float | None) -> str:
    """Return a size for a narrow title: ``23.5G``."""
    return "–" if value is None else _tick(value, digits=3)


def _tick(value: float, digits: int = 4) -> str:
    """Return a size for the tick of an axis: ``1.5G``."""
    if not value:
        return "0"
    unit = fmt.size_unit(abs(value))
    for bytes_, letter in ((1024.0**4, "T"), (1024.0**3, "G"), (1024.0**2, "M"), (1024.0, "K")):
        if unit >= bytes_:
            return f"{value / bytes_:.{digits}g}{letter}"
    return f"{value:.0f}"


def fill(panes: list[Chart], viewport: Viewport, notes: str = "") -> None:
    """Draw the visible steps of the run; ``notes`` is appended to the title of the loss."""
    steps, times = viewport.visible_steps(), viewport.visible_times()
    cursor = None if viewport.cursor is None else (float(viewport.cursor), viewport.time_of(viewport.cursor))
    for pane in panes:
        pane.x_range = times if pane.time_axis else steps
        pane.cursor = None if cursor is None else cursor[pane.time_axis]
    loss, *memories, throughput = panes
    _fill_loss(loss, viewport, notes)
    fillers = (_fill_unified,) if viewport.view.unified_memory else (_fill_device, _fill_host)
    for pane, fill_memory in zip(memories, fillers, strict=True):
        fill_memory(pane, viewport)
    _fill_throughput(throughput, viewport)


def value_at(viewport: Viewport, name: str, text: Callable[[float | None], str]) -> list[str]:
    """Return texts for a series at the cursor, longest first; with minimum and maximum if they differ."""
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


def _fill_loss(pane: Chart, viewport: Viewport, notes: str) -> None:
    view = viewport.view
    coverage, value = view.series["loss"].coverage(), view.last("loss")
    visible, bits = viewport.visible_steps(), view.last("bits_per_byte")
    if bits is not None:
        notes = f" · {fmt.loss(bits)} bits/byte{notes}"
    if coverage is None:
        titles = ["loss · no steps yet"]
    elif viewport.cursor is not None:
        titles = _at_cursor(viewport, "loss", "loss", fmt.loss)
    else:
        first, last, steps = coverage
        loss = fmt.loss(value) if value is not None else "not finite"
        plain = [f"loss {loss} · steps {first}–{last} ({steps})", f"loss {loss} · {first}–{last} ({steps})"]
        if visible is not None:
            begin, end = (fmt.exact(max(step, 0)) for step in visible)
            newest = f"newest {fmt.exact(visible[1] - visible[0])} steps"
            which = newest if viewport.follows_newest() else f"steps {begin}–{end}"
            plain = [f"loss {loss} · {which} of {fmt.exact(last)}", f"loss {loss} · {which}", f"loss {loss}"]
        else:
            plain.append(f"loss {loss} ({steps})")
        titles = [title + notes for title in plain] + plain
    lines = [Line(viewport.points("loss"), "chart--line"), Line(viewport.points("val_loss"), "chart--mark", mark="◆")]
    pane.show(titles, lines, x_end=view.steps, marks=_marks(view))


def _marks(view: RunView) -> list[Mark]:
    order = list(MARKS)
    marks = [mark for mark in view.marks.to_list() if mark.kind in MARKS]
    return [Mark(mark.step, *MARKS[mark.kind]) for mark in sorted(marks, key=lambda mark: order.index(mark.kind))]


def _fill_device(pane: Chart, viewport: Viewport) -> None:
    view = viewport.view
    if view.has_device:
        used, total = view.last("device_used"), view.last("device_total")
        lines = [Line(viewport.points("device_used"), "chart--line")]
        titles = [f"VRAM {fmt.size_of(used, total)}", f"VRAM {fmt.size(used)}"]
        sensors = _sensors(view)
        if viewport.cursor is not None:
            titles = _at_cursor(viewport, "VRAM", "device_used", fmt.size)
        elif sensors:
            titles = [f"{titles[0]} · {sensors}", *titles]
        pane.show(titles, lines, y_top=total, limit=total, notes=_parts(view))
    else:
        size = fmt.size(view.last("rss"))
        titles = [f"no GPU · process memory {size}", f"no GPU · process {size}"]
        if viewport.cursor is not None:
            titles = _at_cursor(viewport, "process memory", "rss", fmt.size)[:-1] + _at_cursor(
                viewport, "process", "rss", fmt.size
            )
        pane.show(titles, [Line(viewport.points("rss"), "chart--line")], notes=_parts(view))


def _sensors(view: RunView) -> str:
    """Return utilization, power and temperature of the GPU, if it reports them."""
    util, watts, degrees = (view.last(name) for name in ("device_util", "power_w", "temp_c"))
    values = [f"{fmt.percent_of_100(util)} busy", fmt.watts(watts), fmt.celsius(degrees)]
    return " · ".join(value for value in values if not value.startswith(fmt.NOTHING))


def _parts(view: RunView) -> list[str]:
    """Return texts for the parts of the memory forecast, longest first."""
    parts = view.memory.parts if view.memory else None
    texts = event_text.describe_parts(parts or {}).split(" · ")
    if not texts[0]:
        return []
    return [
        f"forecast: {' · '.join(texts[:count])}{' …' if count < len(texts) else ''}"
        for count in range(len(texts), 0, -1)
    ]


def _fill_host(pane: Chart, viewport: Viewport) -> None:
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


def _fill_unified(pane: Chart, viewport: Viewport) -> None:
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
        f"peak {_compact(peak)}/{_compact(limit)} active {_compact(active)} cache {_compact(cache)}",
        f"peak {of_limit}",
    ]
    if viewport.cursor is not None:
        titles = _at_cursor(viewport, "peak", "unified_peak", fmt.size)
    elif watts is not None:
        titles.insert(0, f"{titles[0]} · {watts:.0f} W")
    pane.show(titles, lines, x_end=view.steps, limit=limit, notes=_parts(view))


def _fill_throughput(pane: Chart, viewport: Viewport) -> None:
    view = viewport.view
    tokens, mfu = fmt.exact(view.last("tok_s")), view.last("mfu")
    titles = [f"tokens/s {tokens}"]
    if viewport.cursor is not None:
        titles = _at_cursor(viewport, "tokens/s", "tok_s", fmt.exact)
    elif mfu is not None:
        titles.insert(0, f"tokens/s {tokens} · {mfu:.0%} of the matmul peak")
    pane.show(titles, [Line(viewport.points("tok_s"), "chart--line")], x_end=view.steps)
