"""Lists the spec of one run, table by table as in a profile, with its live edits first and marked; scrolls."""

from __future__ import annotations

from itertools import groupby
from typing import Any, ClassVar

from tui.app.state.spec_diff import Edited, value_text
from tui.app.widgets.canvas import Row
from tui.app.widgets.scrolled_lines import ScrolledLines
from tui.text.ellipsis import clip

_MARK = "▲"  # as an edit has it below the charts
_ORDER = ("", "batch", "train", "optim", "memory", "data")  # tables that come first; that of the model is long
_KEY_SHARE = 0.6  # the part of the width that keys take at most


class SpecPanel(ScrolledLines):
    COMPONENT_CLASSES: ClassVar[set[str]] = {"lines--edited"}

    def __init__(self) -> None:
        super().__init__(" Spec", id="spec")
        self._spec: dict[str, Any] | None = None

    def show(self, spec: dict[str, Any]) -> None:
        """Show the flat ``spec`` of the run; an empty one is missing or damaged."""
        self._spec = spec
        self.redraw()

    def lines(self, width: int) -> list[Row]:
        spec = self._spec
        if not spec:
            text = "loading the spec …" if spec is None else "spec.json is missing or damaged"
            return [[(clip(f" {text}", width), "lines--note")]]
        edited = {key: value for key, value in spec.items() if isinstance(value, Edited)}
        lines: list[Row] = []
        if edited:
            lines += [_title("edited live"), *_rows(edited, edited, width), []]
        for table, keys in groupby(sorted(spec, key=_place), _table):
            values = {key.rpartition(".")[2]: spec[key] for key in keys}
            lines += [*([_title(table)] if table else []), *_rows(values, _now(values), width), []]
        return lines[:-1]


def _table(key: str) -> str:
    return key.rpartition(".")[0]


def _place(key: str) -> int:
    """Return the place of a key's table among the tables."""
    return _ORDER.index(_table(key)) if _table(key) in _ORDER else len(_ORDER) + (_table(key) == "model")


def _title(text: str) -> Row:
    return [(f" {text}", "lines--key")]


def _now(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value.now if isinstance(value, Edited) else value for key, value in values.items()}


def _rows(values: dict[str, Any], shown: dict[str, Any], width: int) -> list[Row]:
    """Return a line for each key with what is ``shown`` of its value."""
    cells = min(max(map(len, values)), int(width * _KEY_SHARE))
    rows: list[Row] = []
    for key, value in values.items():
        text = clip(value_text(shown[key]), max(width - cells - 5, 1))
        key = f"{clip(key, cells):<{cells}}  "
        if isinstance(value, Edited):
            rows.append([(f" {_MARK} {key}{text}", "lines--edited")])
        else:
            rows.append([(f"   {key}", "lines--note"), (text, "")])
    return rows
