"""What the panes of the monitor show: titles, lines and capacities from what is known of a run.

Four: loss, VRAM, RAM offload, tokens/s. Three where device and host share one memory.
"""

from __future__ import annotations

from tui import format as words
from tui.run_view import RunView
from tui.widgets.chart import Chart, Line

SMOOTHINGS = ((0.0, ""), (0.6, "smooth"), (0.95, "very smooth"))


def make(view: RunView) -> list[Chart]:
    """The charts in the order of their number keys."""
    if view.one_memory:
        memories = [_memory_chart("unified memory", 2, time_axis=False)]
    else:
        memories = [_memory_chart("VRAM", 2), _memory_chart("RAM offload", 3)]
    speed = Chart("tokens/s", id=f"pane-{len(memories) + 2}", y_text=words.axis, from_zero=True)
    return [Chart("loss", id="pane-1"), *memories, speed]


def _memory_chart(title: str, number: int, time_axis: bool = True) -> Chart:
    return Chart(
        title, id=f"pane-{number}", time_axis=time_axis, y_text=_short_size, y_unit=words.size_unit, from_zero=True
    )


def _shorter(value: float | None) -> str:
    """A size where a title has few cells: ``23.5G``."""
    return "–" if value is None else _short_size(value, digits=3)


def _short_size(value: float, digits: int = 4) -> str:
    """A tick in the cells of an axis: ``1.5G``."""
    if not value:
        return "0"
    unit = words.size_unit(abs(value))
    for bytes_, letter in ((1024.0**4, "T"), (1024.0**3, "G"), (1024.0**2, "M"), (1024.0, "K")):
        if unit >= bytes_:
            return f"{value / bytes_:.{digits}g}{letter}"
    return f"{value:.0f}"


def fill(panes: list[Chart], view: RunView, notes: str = "") -> None:
    """Show the state of ``view``; ``notes`` says how the loss is drawn."""
    loss, *memories, speed = panes
    _loss(loss, view, notes)
    for pane, show in zip(memories, (_unified,) if view.one_memory else (_device, _host), strict=True):
        show(pane, view)
    _speed(speed, view)


def _loss(pane: Chart, view: RunView, notes: str) -> None:
    track, val = view.tracks["loss"], view.tracks["val_loss"]
    covered = track.covered()
    if covered is None:
        titles = ["loss · no steps yet"]
    else:
        first, last, steps = covered
        value = words.loss(track.last) if track.last is not None else "not finite"
        counted = f"loss {value} · steps {first}–{last} ({steps})"
        short = f"loss {value} · {first}–{last} ({steps})"
        plain = [counted, short, f"loss {value} ({steps})"]
        titles = [title + notes for title in plain] + plain
    lines = [Line(track.points, "chart--line"), Line(val.points, "chart--mark", mark="◆")]
    pane.show(titles, lines, x_end=view.steps)


def _device(pane: Chart, view: RunView) -> None:
    if view.has_device:
        used, total = view.last("device_used"), view.last("device_total")
        lines = [Line(view.tracks["device_used"].points, "chart--line")]
        pane.show([f"VRAM {words.size_of(used, total)}", f"VRAM {words.size(used)}"], lines, y_top=total)
    else:
        track = view.tracks["rss"]
        now = words.size(track.last)
        pane.show([f"no GPU · process memory {now}", f"no GPU · process {now}"], [Line(track.points, "chart--line")])


def _host(pane: Chart, view: RunView) -> None:
    states, used, total = words.size(view.last("host_states") or 0), view.last("ram_used"), view.last("ram_total")
    lines = [Line(view.tracks["ram_used"].points, "chart--line")]
    if view.last("host_states"):
        lines.append(Line(view.offloaded.points, "chart--second"))
    titles = [f"RAM offload {states} · {words.size_of(used, total)}", f"RAM {states} · {words.size_of(used, total)}"]
    pane.show([*titles, f"RAM offload {states}"], lines, y_top=total)


def _unified(pane: Chart, view: RunView) -> None:
    active, cache, peak, limit = (view.last(f"unified_{name}") for name in ("active", "cache", "peak", "limit"))
    lines = [
        Line(view.tracks["unified_peak"].points, "chart--line"),
        Line(view.tracks["unified_active"].points, "chart--second"),
    ]
    of_limit = words.size_of(peak, limit)
    titles = [
        f"unified memory peak {of_limit} · active {words.size(active)} · cache {words.size(cache)}",
        f"peak {of_limit} · active {words.size(active)} · cache {words.size(cache)}",
        f"peak {_shorter(peak)}/{_shorter(limit)} active {_shorter(active)} cache {_shorter(cache)}",
        f"peak {of_limit}",
    ]
    pane.show(titles, lines, x_end=view.steps)


def _speed(pane: Chart, view: RunView) -> None:
    track = view.tracks["tok_s"]
    pane.show([f"tokens/s {words.exact(track.last)}"], [Line(track.points, "chart--line")], x_end=view.steps)
