"""Builds the page of a report: one HTML file that needs nothing else."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from engine.events.metric import Metric
from engine.events.metrics import METRICS, STEP_METRICS, VAL_LOSS, VAL_METRICS
from tui.app.state.spec_diff import ABSENT, Edited
from tui.cli.report.chart import Flag, Line, draw
from tui.cli.report.reported_run import ReportedRun
from tui.text import format as fmt
from tui.text.event_text import describe, describe_mark

MARKER = "<!-- mla-tui report -->"  # the second line of a page, by which it is known as one of ours
_POINTS = 12_000  # of all lines of all charts; about 40 bytes each
_MOST = 500  # of one line
_COLOURS = 8
_FLAGS = 150  # on a chart
_UNDRAWN = ("tokens", "tokens_day")  # they are the steps and the speed in other units
_STYLE = (Path(__file__).with_name("page.css"), Path(__file__).with_name("page.js"))


def page(runs: Sequence[ReportedRun], version: str, now: float) -> str:
    """Return the HTML of a report on ``runs``, made at ``now`` by this ``version``."""
    style, script = (path.read_text() for path in _STYLE)
    title = ", ".join(run.name for run in runs)
    body = "".join(
        [
            f"<h1>{escape(title)}</h1><p class=made>mla-tui {escape(version)}, {_time(now)}</p>",
            _table(runs),
            f'<div class="charts">{"".join(_charts(runs))}</div>',
            "<p class=made>By step. Dotted lines: edits, restarts and errors; point at one to read it.</p>",
            *(_story(run, len(runs) > 1) for run in runs),
            _environment(runs),
            _specs(runs),
        ]
    )
    return (
        f'<!doctype html>\n{MARKER}\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body>{body}<script>{script}</script></body></html>\n"
    )


def _time(t: float | None) -> str:
    """Return a local time with its date: a page is read on another day."""
    return fmt.NOTHING if t is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(t))


def _colour(runs: Sequence[ReportedRun], run: ReportedRun) -> int:
    return [one.letter for one in runs].index(run.letter) % _COLOURS


def _head(run: ReportedRun, several: bool) -> str:
    return f"{run.letter} · {run.name}" if several else run.name


def _table(runs: Sequence[ReportedRun]) -> str:
    """Return the table of results, a column a run."""
    rows: list[tuple[str, list[str]]] = [
        ("state", [f"{run.summary.phase}" for run in runs]),
        ("step", [f"{fmt.exact(run.summary.step or 0)} of {fmt.exact(run.summary.steps)}" for run in runs]),
        ("tokens", [fmt.count(_tokens(run)) for run in runs]),
        ("time", [fmt.duration(_seconds(run)) for run in runs]),
        ("loss", [fmt.fixed(run.summary.loss, 4) for run in runs]),
        ("validation loss", [fmt.fixed(run.summary.val_loss, 4) for run in runs]),
        ("best validation loss", [fmt.fixed(_lowest(run, VAL_LOSS), 4) for run in runs]),
        ("bits per byte", [fmt.fixed(run.summary.bits_per_byte, 4) for run in runs]),
        ("tokens/s, mean", [fmt.count(_mean(run, "tok_s")) for run in runs]),
        ("MFU, mean", [fmt.percent(_mean(run, "mfu")) for run in runs]),
        ("device", [(run.start.device if run.start else None) or ABSENT for run in runs]),
        ("parameters", [fmt.count(run.start.params if run.start else None) for run in runs]),
    ]
    several = len(runs) > 1
    heads = "".join(f'<th class="c{_colour(runs, run)}">{escape(_head(run, several))}</th>' for run in runs)
    lines = "".join(
        f"<tr><th>{label}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
        for label, cells in rows
        if any(cell != fmt.NOTHING for cell in cells)
    )
    return f'<div class="scroll"><table><tr><th></th>{heads}</tr>{lines}</table></div>'


def _charts(runs: Sequence[ReportedRun]) -> Iterator[str]:
    shown = [metric for metric in METRICS.values() if metric.axis == "step" and (metric.compare or metric.copied)]
    shown = [metric for metric in shown if any(metric.name in run.series for run in runs)]
    shown = [metric for metric in shown if metric.name not in _UNDRAWN]
    points = min(_MOST, _POINTS // max(1, len(shown) * len(runs)))
    flags = [flag for run in runs for flag in _flags(runs, run)]
    loss = STEP_METRICS[0]
    for metric in shown:
        if metric.name == VAL_LOSS:
            continue  # beside the loss
        lines = [_line(runs, run, metric) for run in runs if metric.name in run.series]
        if metric is loss:
            lines += [_line(runs, run, VAL_METRICS[0]) for run in runs if VAL_LOSS in run.series]
        yield draw(metric, lines, flags, points)


def _line(runs: Sequence[ReportedRun], run: ReportedRun, metric: Metric) -> Line:
    is_val = metric.name == VAL_LOSS
    label = f"{run.letter}{' val' * is_val}" if len(runs) > 1 else metric.title
    return Line(label, _colour(runs, run), run.series[metric.name], dashed=is_val)


def _flags(runs: Sequence[ReportedRun], run: ReportedRun) -> Iterator[Flag]:
    """Yield the newest marks of a run, so many that a page of many runs stays small."""
    whose = f"{run.letter}: " if len(runs) > 1 else ""
    for mark in run.marks[-(_FLAGS // len(runs)) :]:
        yield Flag(mark.step, whose + describe_mark(mark), _colour(runs, run))


def _story(run: ReportedRun, several: bool) -> str:
    rows = []
    for event in run.incidents:
        if (found := describe(event)) is not None:
            text, tone = found
            rows.append(f'<tr class="{tone}"><td>{_time(event.t)}</td><td>{escape(text)}</td></tr>')
    more = f"<p>{run.left_out} others between them are left out.</p>" if run.left_out else ""
    title = f"What happened{f' to {_head(run, True)}' if several else ''}"
    return _details(
        title, f'{more}<div class="scroll"><table class="left">{"".join(rows)}</table></div>', open=not several
    )


def _environment(runs: Sequence[ReportedRun]) -> str:
    found = [
        {
            "device": run.start.device,
            **{f"plan: {key}": value for key, value in (run.start.plan or {}).items()},
            **{f"version: {key}": value for key, value in (run.start.versions or {}).items()},
            "data": run.start.data.digest if run.start.data else None,
            "host": run.summary.host,
        }
        if run.start
        else {}
        for run in runs
    ]
    return _details("Environment", _values(runs, found), open=False)


def _specs(runs: Sequence[ReportedRun]) -> str:
    differing = "" if len(runs) == 1 else ", differences first"
    return _details(f"Settings{differing}", _values(runs, [run.spec for run in runs]), open=False)


def _values(runs: Sequence[ReportedRun], tables: Sequence[dict[str, Any]]) -> str:
    keys = list(dict.fromkeys(key for table in tables for key in table))
    rows = [(key, [_text(table.get(key)) for table in tables]) for key in keys]
    rows.sort(key=lambda row: len(set(row[1])) == 1)  # those that differ first
    heads = "".join(f"<th>{escape(_head(run, True))}</th>" for run in runs) if len(runs) > 1 else "<th></th>"
    lines = "".join(
        f'<tr class="{"differs" if len(set(cells)) > 1 else ""}"><th>{escape(key)}</th>'
        f"{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
        for key, cells in rows
    )
    return f'<div class="scroll"><table class="left"><tr><th></th>{heads}</tr>{lines}</table></div>'


def _text(value: object) -> str:
    if isinstance(value, Edited):
        return f"{_text(value.launched)} → {_text(value.now)} (edited)"
    return ABSENT if value is None else str(value)[:400]


def _details(title: str, content: str, *, open: bool) -> str:
    return f"<details{' open' if open else ''}><summary>{escape(title)}</summary>{content}</details>"


def _tokens(run: ReportedRun) -> float | None:
    """Return the tokens up to the step that the run is at: a restart has dropped later ones, or will."""
    step = math.inf if run.summary.step is None else run.summary.step
    known = (point[3] for point in run.series.get("tokens", ()) if point[3] is not None and point[0] <= step)
    return max(known, default=None)


def _lowest(run: ReportedRun, name: str) -> float | None:
    return min((point[1] for point in run.series.get(name, ()) if point[1] is not None), default=None)


def _mean(run: ReportedRun, name: str) -> float | None:
    known = [point[2] for point in run.series.get(name, ()) if point[2] is not None]
    return sum(known) / len(known) if known else None


def _seconds(run: ReportedRun) -> float | None:
    times = [point for point in run.series.get("t", ()) if point[1] is not None and point[3] is not None]
    first, last = (times[0][1], times[-1][3]) if times else (None, None)
    return None if first is None or last is None else last - first
