"""Shows every key of a screen with what it does, from the action registry; scrolls if they do not fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.cells import cell_len
from textual.app import ComposeResult

from tui.app.actions.action import GROUPS, Action, ActionSet
from tui.app.actions.registry import HELP_DIALOG
from tui.app.base import AppModal
from tui.app.widgets.canvas import Row
from tui.app.widgets.dialog import Dialog
from tui.app.widgets.scrolled_lines import ScrolledLines
from tui.text.ellipsis import wrap

_GAP = 2  # cells between keys and text
_KEYS = 11  # cells for the keys at most; where one action has more, its text begins on the next line
_FRAME = 2  # lines of the border


def help_lines(offered: Sequence[Action], width: int) -> list[Row]:
    """Return the actions with their whole text, wrapped at ``width`` cells, under the titles of their groups."""
    keys = min(max((cell_len(action.key_names) for action in offered), default=0), _KEYS)
    lines: list[Row] = []
    for group in GROUPS:
        actions = [action for action in offered if action.group == group]
        if actions:
            lines += [*([[]] if lines else []), [(group, "lines--note")]]
        for action in actions:
            lines += _lines(action, keys, width)
    return lines


def _lines(action: Action, keys: int, width: int) -> list[Row]:
    indent = keys + _GAP
    first, *more = wrap(f"{action.title}: {action.help}", width - indent)
    title, text = first[: len(action.title) + 1], first[len(action.title) + 1 :]
    name: Row = [(f"{action.key_names:<{indent}}", "help--key")]
    start: list[Row] = [name] if cell_len(action.key_names) <= keys else [name, [(" " * indent, "")]]
    start[-1] += [(title, "lines--key"), (text, "")]
    return [*start, *([(" " * indent + line, "")] for line in more)]


class HelpLines(ScrolledLines):
    COMPONENT_CLASSES: ClassVar[set[str]] = {"help--key"}

    def __init__(self, title: str, offered: Sequence[Action]) -> None:
        super().__init__(title)
        self._offered = offered

    def lines(self, width: int) -> list[Row]:
        return help_lines(self._offered, width)


class HelpScreen(AppModal[None], actions=HELP_DIALOG):
    CSS_PATH = "../styles/dialogs.tcss"

    def __init__(self, described: ActionSet) -> None:
        super().__init__()
        self._described = described

    def compose(self) -> ComposeResult:
        with Dialog("q closes", id="help"):
            yield HelpLines(f"{self._described.title}: keys", self.app.offered(self._described))

    def on_mount(self) -> None:
        self.query_one(HelpLines).focus()
        self._fit()

    def on_resize(self) -> None:
        self._fit()

    def _fit(self) -> None:
        """Make the dialog as high as its lines, as far as the terminal is."""
        lines = self.query_one(HelpLines)
        width = lines.content_size.width or min(self.size.width, 100) - 6
        wanted, most = len(lines.lines(width)) + 1, self.size.height - _FRAME
        lines.styles.height = min(wanted, most)
        self.query_one(Dialog).show_keys(*(["j k scroll · q closes"] if wanted > most else []), "q closes")
