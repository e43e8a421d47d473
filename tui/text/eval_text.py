"""Writes the results of evaluations as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from engine.checkpoints.evals import EvalResult
from profiles.printable import one_line
from tui.text.format import exact

_NAMES = {"bits_per_byte": "bits/byte"}
_MAIN = ("bits_per_byte", "acc_norm", "acc")  # the one that stands for a result where there is room for one


def result_lines(results: Sequence[EvalResult]) -> list[str]:
    """Return a line for each result: name, format, number of examples, metrics with their standard errors.

    Two of one name and format have the beginning of the hash of their content behind it.
    """
    times = Counter((result.label, result.format) for result in results)
    names = [
        one_line(result.label, 60) + (f" ({result.digest[:6]})" if times[result.label, result.format] > 1 else "")
        for result in results
    ]
    width = max(map(len, names), default=0)
    return [
        f"{name:<{width}}  {result.format:<9}  {exact(result.examples):>6}  {_metrics(result)}"
        for name, result in zip(names, results, strict=True)
    ]


def main_metric(result: EvalResult) -> str:
    """Return the most telling metric in a few words, such as "arc.jsonl acc_norm 0.312"."""
    name = next((name for name in _MAIN if name in result.metrics), None) or next(iter(result.metrics), "")
    value = result.metrics.get(name)
    return one_line(f"{result.label} {_NAMES.get(name, name)} {'–' if value is None else f'{value:.3f}'}", 60)


def _metrics(result: EvalResult) -> str:
    values = result.metrics
    parts = []
    for name, value in values.items():
        error = values.get(f"{name}_stderr")
        if not name.endswith("_stderr"):
            number = f"{value:.4g}" if error is None else f"{value:.3f} ±{error:.3f}"
            parts.append(one_line(f"{_NAMES.get(name, name)} {number}", 60))
    return "  ".join(parts)
