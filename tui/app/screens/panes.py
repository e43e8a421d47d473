"""Defines the panes of the monitor: loss, VRAM, RAM offload and tokens/s, and one for any other metric.

With unified memory there is one memory pane.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

from textual.widget import Widget

from engine.events.metric import Metric
from tui.app.state.pane_metrics import PANE_METRICS
from tui.app.state.run_view import RunView
from tui.app.state.viewport import Viewport
from tui.app.state.x_axis import STEP, TIME
from tui.app.widgets.chart import Chart, Line, Mark
from tui.text import event_text
from tui.text import format as fmt
from tui.text.axis_text import chart_unit

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


_ALWAYS = ("lr", "grad_norm")
_IF_MEASURED = ("mfu", "data_share", "device_util", "power_w", "temp_c")

Fill = Callable[["Pane", Viewport], None]


class Pane(Chart):
    """A chart of the monitor. ``fill`` draws it; ``smooths`` says whether its line can be smoothed."""

    def __init__(self, id: str, title: str, fill: Fill, *, from_zero: bool = False, smooths: bool = False) -> None:
        super().__init__(title, id=f"pane-{id}", from_zero=from_zero)
        self._fill, self.smooths = fill, smooths

    @property
    def styled_by(self) -> Widget:
        """The grid of the panes: Textual keeps two nodes a style, and all panes have the same 15."""
        return cast(Widget, self.parent)

    def update(self, viewport: Viewport) -> None:
        """Draw the visible steps of the run."""
        self.axis, self.x_range, self.x_extent = viewport.axis, viewport.visible_x(), viewport.extent()
        self.cursor = None if viewport.cursor is None else viewport.x_of(viewport.cursor)
        self._fill(self, viewport)


def first_page(view: RunView) -> list[Pane]:
    """Return the panes that have a number key, in the order of the keys."""
    if view.unified_memory:
        memories = [Pane("2", "unified memory", _fill_unified, from_zero=True)]
    else:
        memories = [
            Pane("2", "VRAM", _fill_device, from_zero=True),
            Pane("3", "RAM offload", _fill_host, from_zero=True),
        ]
    throughput = Pane(f"{len(memories) + 2}", "tokens/s", _fill_throughput, from_zero=True, smooths=True)
    return [Pane("1", "loss", _fill_loss, smooths=True), *memories, throughput]


def metric_pane(name: str) -> Pane:
    """Return the pane of a metric of ``PANE_METRICS``."""
    metric = PANE_METRICS[name]
    by_step = metric.axis == "step"
    return Pane(name, metric.title, partial(_fill_metric, metric), smooths=by_step)


def usual_panes(view: RunView) -> list[str]:
    """Return the metrics whose panes follow the first page while the user has not chosen others."""
    return [*_ALWAYS, *(name for name in _IF_MEASURED if view.series[name].x)]


def _x_end(viewport: Viewport) -> int | None:
    """Return the largest possible x, as far as it is known."""
    return viewport.view.steps if viewport.axis == STEP else None


def _fill_metric(metric: Metric, pane: Pane, viewport: Viewport) -> None:
    text, value = fmt.formatter(metric.format), viewport.view.last(metric.name)
    if viewport.cursor is not None:
        titles = _at_cursor(viewport, metric.title, metric.name, text)
    else:
        titles = [f"{metric.title} {text(value)}"]
    unit, scale = chart_unit(metric, value)
    log = " · log" if pane.log_axis else ""
    lines = [Line(viewport.drawn(metric.name), "chart--line")]
    pane.show([f"{title}{log}" for title in titles], lines, x_end=_x_end(viewport), unit=unit, scale=scale)


def _compact(value: float | None) -> str:
    """Return a size for a narrow title: ``23.5G``."""
    scale, unit = fmt.size_scale(value)
    return fmt.NOTHING if value is None else f"{value / scale:.3g}{unit[:1]}"


def value_at(viewport: Viewport, name: str, text: Callable[[float | None], str]) -> tuple[list[str], float | None]:
    """Return texts for a series at the cursor, longest first, and the step they are of.

    Minimum and maximum are named if they differ.
    """
    point = viewport.bucket_at_cursor(name)
    if point is None or point[2] is None:
        return [fmt.NOTHING], viewport.cursor
    _, low, mean, high = point
    extremes = [f"{text(mean)} ({text(low)} to {text(high)})"] if low != high else []
    return [*extremes, text(mean)], viewport.step_of(name, point)


def _at_cursor(viewport: Viewport, label: str, name: str, text: Callable[[float | None], str]) -> list[str]:
    values, at = value_at(viewport, name, text)
    step = fmt.exact(at)
    return [
        *(f"{label} {value} · at step {step}" for value in values),
        *(f"{label} {value} @{step}" for value in values),
        f"{label} {values[-1]}",
    ]


def _fill_loss(pane: Pane, viewport: Viewport) -> None:
    view = viewport.view
    smoothing = next((name for weight, name in SMOOTHINGS if weight == pane.smoothing), "")
    notes = "".join(f" · {note}" for note in (smoothing, "log" if pane.log_axis else "") if note)
    coverage, value = view.series["loss"].coverage(), view.last("loss")
    visible, bits = viewport.visible_steps(), view.last("bits_per_byte")
    val = "" if bits is None else f" · val {fmt.loss(bits)} bits/byte"
    if coverage is None:
        titles = ["loss · no steps yet" if view.loaded else "loss · reading the log …"]
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
            plain += [f"loss {loss} ({steps})", f"loss {loss}"]
        titles = [title + behind for behind in (val + notes, notes, "") for title in plain]
    lines = [Line(viewport.drawn("loss"), "chart--line"), Line(viewport.drawn("val_loss"), "chart--mark", mark="◆")]
    pane.show(titles, lines, x_end=_x_end(viewport), marks=_marks(viewport), unit="nats")


def _marks(viewport: Viewport) -> list[Mark]:
    order = list(MARKS)
    marks = [mark for mark in viewport.view.marks.to_list() if mark.kind in MARKS]
    marks.sort(key=lambda mark: order.index(mark.kind))
    return [Mark(viewport.x_of(mark.step), *MARKS[mark.kind]) for mark in marks]


def _fill_device(pane: Pane, viewport: Viewport) -> None:
    view = viewport.view
    if view.has_device:
        used, total = view.last("device_used"), view.last("device_total")
        lines = [Line(viewport.drawn("device_used"), "chart--line")]
        titles = [f"VRAM {fmt.size_of(used, total)}", f"VRAM {fmt.size(used)}"]
        sensors = _sensors(view)
        if viewport.cursor is not None:
            titles = _at_cursor(viewport, "VRAM", "device_used", fmt.size)
        elif sensors:
            titles = [f"{titles[0]} · {sensors}", *titles]
        _show_memory(pane, viewport, titles, lines, total or used, y_top=total, limit=total, notes=_parts(view))
    else:
        size = fmt.size(view.last("rss"))
        titles = [f"no GPU · process memory {size}", f"no GPU · process {size}"]
        if viewport.cursor is not None:
            titles = _at_cursor(viewport, "process memory", "rss", fmt.size)[:-1] + _at_cursor(
                viewport, "process", "rss", fmt.size
            )
        lines = [Line(viewport.drawn("rss"), "chart--line")]
        _show_memory(pane, viewport, titles, lines, view.last("rss"), notes=_parts(view))


def _show_memory(
    pane: Pane, viewport: Viewport, titles: list[str], lines: list[Line], size: float | None, **options: Any
) -> None:
    """Draw lines of bytes; the axis is in the unit of ``size``, which is in the title."""
    scale, unit = fmt.size_scale(size)
    pane.show(titles, lines, x_end=_x_end(viewport), unit=unit, scale=scale, **options)


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


def _fill_host(pane: Pane, viewport: Viewport) -> None:
    view = viewport.view
    states, used, total = view.last("host_states"), view.last("ram_used"), view.last("ram_total")
    lines = [Line(viewport.drawn("ram_used"), "chart--line")]
    in_use = fmt.size_of(used, total)
    pane.from_zero = bool(states)
    if states:
        offloaded = viewport.on_axis("offloaded", view.offloaded.points, TIME)
        lines.append(Line(offloaded, "chart--second"))
        titles = [f"RAM offload {fmt.size(states)} · {in_use}", f"RAM {fmt.size(states)} · {in_use}"]
        titles.append(f"RAM offload {fmt.size(states)}")
    else:  # the axis is scaled to what moves, not to the size of the memory
        titles = [f"RAM {in_use} · offloaded 0", f"RAM {fmt.size(used)} · offloaded 0"]
    if viewport.cursor is not None:
        titles = _at_cursor(viewport, "RAM in use", "ram_used", fmt.size) + _at_cursor(
            viewport, "RAM", "ram_used", fmt.size
        )
    top = total if states else None
    _show_memory(pane, viewport, titles, lines, top or used, y_top=top, limit=top)


def _fill_unified(pane: Pane, viewport: Viewport) -> None:
    view = viewport.view
    active, cache, peak, limit = (view.last(f"unified_{name}") for name in ("active", "cache", "peak", "limit"))
    lines = [
        Line(viewport.drawn("unified_peak"), "chart--line"),
        Line(viewport.drawn("unified_active"), "chart--second"),
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
    _show_memory(pane, viewport, titles, lines, limit or peak, limit=limit, notes=_parts(view))


def _fill_throughput(pane: Pane, viewport: Viewport) -> None:
    view = viewport.view
    tokens, mfu = fmt.exact(view.last("tok_s")), view.last("mfu")
    titles = [f"tokens/s {tokens}"]
    if viewport.cursor is not None:
        titles = _at_cursor(viewport, "tokens/s", "tok_s", fmt.exact)
    elif mfu is not None:
        titles.insert(0, f"tokens/s {tokens} · {mfu:.0%} of the matmul peak")
    pane.show(titles, [Line(viewport.drawn("tok_s"), "chart--line")], x_end=_x_end(viewport), unit="tok/s")
