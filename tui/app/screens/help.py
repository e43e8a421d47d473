"""Shows every key of a screen, from the action registry."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.cells import cell_len
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Static

from tui.app.actions.action import GROUPS, Action, ActionSet
from tui.app.actions.registry import HELP_DIALOG
from tui.app.base import AppModal

_GAP = 2  # cells between two columns
_KEYS = 7  # cells for the keys in several columns
_THREE = 70  # cells below which three columns would truncate the titles, so the help scrolls
_MARGIN = 6  # cells of border and padding
_FRAME = 5  # lines of border, title and note


def help_text(offered: Sequence[Action], width: int, height: int) -> Text:
    """Return the actions under the titles of their groups, in ``width`` × ``height`` cells if they fit at all.

    Where there is space with their help in one column, else only their titles in two or three columns.
    """
    groups = [(name, [action for action in offered if action.group == name]) for name in GROUPS]
    groups = [(name, actions) for name, actions in groups if actions]
    if len(offered) + len(groups) <= height:
        return Text("\n").join(_column(groups, width, full=True))
    columns = 2 if len(offered) + len(groups) < 2 * height or width < _THREE else 3
    column_width = (width - _GAP * (columns - 1)) // columns
    lines = _column(groups, column_width, full=False)
    ends = _breaks(groups, len(lines), columns)
    parts = [lines[start:end] for start, end in zip([0, *ends], [*ends, len(lines)], strict=True)]
    rows = []
    for i in range(max(map(len, parts))):
        row = Text()
        for at, part in enumerate(parts):
            row.pad_right(at * (column_width + _GAP) - row.cell_len)
            row.append_text(part[i] if i < len(part) else Text())
        rows.append(row)
    return Text("\n").join(rows)


def _column(groups: Sequence[tuple[str, list[Action]]], width: int, full: bool) -> list[Text]:
    keys = max(cell_len(action.key_names) for _, actions in groups for action in actions)
    if not full:  # one action with many keys must not shorten all titles
        keys = min(keys, _KEYS)
    lines = []
    for name, actions in groups:
        lines.append(Text.assemble((name, "bold underline")))
        for action in actions:
            text = f"{action.title}: {action.help}" if full else action.title
            line = Text.assemble((f"{action.key_names:<{keys}}  ", "bold"), text)
            line.truncate(width, overflow="ellipsis")
            lines.append(line)
    return lines


def _breaks(groups: Sequence[tuple[str, list[Action]]], total: int, columns: int) -> list[int]:
    """Return the lines at which the columns after the first begin: evenly spaced, at a group title if one is near."""
    starts, at = [], 0
    for _, actions in groups:
        starts.append(at)
        at += len(actions) + 1
    even = [math.ceil(total * i / columns) for i in range(1, columns)]
    near = [min(starts, key=lambda start: abs(start - line)) for line in even]
    return [
        n if columns == 2 and abs(n - line) <= 3 else line + (line - 1 in starts)
        for n, line in zip(near, even, strict=True)
    ]


class HelpScreen(AppModal[None], actions=HELP_DIALOG):
    """Scrolls if the keys do not fit."""

    CSS_PATH = "../styles/dialogs.tcss"

    def __init__(self, described: ActionSet) -> None:
        super().__init__()
        self._described = described

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="help", classes="dialog"):
            yield Static(f"{self._described.title}: keys", id="help-title", classes="dialog-title")
            yield Static("", id="help-keys", markup=False)
            yield Static("q closes", id="help-foot", classes="dialog-note")

    def on_mount(self) -> None:
        self._fill()

    def on_resize(self) -> None:
        self._fill()

    def _fill(self) -> None:
        width, height = self.size
        text = help_text(self.app.offered(self._described), min(width, 100) - _MARGIN, height - _FRAME)
        self.query_one("#help-keys", Static).update(text)

    def action_scroll_lines(self, by: int) -> None:
        self.query_one("#help", VerticalScroll).scroll_relative(y=by, animate=False)
