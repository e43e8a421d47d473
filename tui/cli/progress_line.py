"""Shows on stderr how far something is: a bar in a terminal, else a line every few seconds."""

from __future__ import annotations

import sys
import time

from profiles.printable import one_line
from tui.cli.terminal_output import unfiltered

_FIRST_LINE, _LINE_SECONDS = 1.0, 10.0  # between lines, where there is no terminal: more of them in the beginning
_PAINT_SECONDS = 0.1
_WIDTH, _BAR = 79, 20


class ProgressLine:
    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._started = time.monotonic()
        self._due = self._started + self._pause(0.0)

    def due(self) -> bool:
        """Return whether it is time for ``bar``."""
        now = time.monotonic()
        if now < self._due:
            return False
        self._due = now + self._pause(now - self._started)
        return True

    def _pause(self, elapsed: float) -> float:
        return _PAINT_SECONDS if self._terminal else min(max(_FIRST_LINE, elapsed / 10), _LINE_SECONDS)

    def bar(self, fraction: float, text: str) -> None:
        """Show which ``fraction`` is done, and a text."""
        text = f"{fraction:4.0%}  {text}"
        if self._terminal:
            filled = int(_BAR * fraction)
            self.text(f"[{'#' * filled}{'.' * (_BAR - filled)}] {text}")
        else:
            print(text.strip(), file=sys.stderr, flush=True)

    def text(self, text: str) -> None:
        """Show a text in place of the bar; without a terminal nothing."""
        if self._terminal:
            print(f"\r\x1b[K{one_line(text)[:_WIDTH]}", end="", file=unfiltered(sys.stderr), flush=True)

    def clear(self) -> None:
        if self._terminal:
            print("\r\x1b[K", end="", file=unfiltered(sys.stderr), flush=True)
