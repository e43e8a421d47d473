"""Lists the differences between the specs of the compared runs; scrolls."""

from __future__ import annotations

from typing import Any, ClassVar

from rich.cells import cell_len

from tui.app.state.comparison import ComparedRun
from tui.app.state.spec_diff import differences, group_by_value
from tui.app.widgets.canvas import Row, Span
from tui.app.widgets.overlay_chart import COLOURS, run_style
from tui.app.widgets.scrolled_lines import ScrolledLines
from tui.text.ellipsis import clip


class SpecTable(ScrolledLines):
    """One line per key: each value after the letters of the runs that have it."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {run_style(index) for index in range(COLOURS)}

    def __init__(self, runs: list[ComparedRun]) -> None:
        super().__init__(" Spec differences", id="specs")
        self._runs = runs
        self._specs: list[dict[str, Any]] | None = None

    def show(self, specs: list[dict[str, Any]]) -> None:
        """Show the flat specs of the runs, in their order; an empty spec is missing or damaged."""
        self._specs = specs
        self.redraw()

    def lines(self, width: int) -> list[Row]:
        if self._specs is None:
            return [[(" loading specs …", "lines--note")]]
        readable = [(i, run, spec) for i, (run, spec) in enumerate(zip(self._runs, self._specs, strict=True)) if spec]
        lines: list[Row] = [
            [(clip(f" {run.letter}: its spec.json is missing or damaged", width), "lines--note")]
            for run, spec in zip(self._runs, self._specs, strict=True)
            if not spec
        ]
        found = differences([spec for _, _, spec in readable])
        if not found:
            text = " no differences" if len(readable) > 1 else " only one run: mark more runs to compare"
            return [*lines, [(clip(text, width), "lines--note")]]
        letters = [run.letter for _, run, _ in readable]
        numbers = {run.letter: i for i, run, _ in readable}
        key_width = max(len(key) for key in found)
        for key, values in found.items():
            groups = group_by_value(values, letters)
            row: Row = [(f" {key:<{key_width}}", "lines--key")]
            for members, text in groups:
                row += [("  ", ""), *_letters(members, numbers), (f" {text}", "")]
            if sum(cell_len(text) for text, _ in row) <= width:
                lines.append(row)
                continue
            lines.append([(clip(f" {key}", width), "lines--key")])
            for members, text in groups:
                left = width - 4 - len(members)
                lines.append([("   ", ""), *_letters(members, numbers), (f" {clip(text, max(left, 1))}", "")])
        return lines


def _letters(members: str, numbers: dict[str, int]) -> list[Span]:
    return [(letter, run_style(numbers[letter])) for letter in members]
