"""The last events of a run, newest at the bottom, in plain words."""

from __future__ import annotations

import time
from collections import deque
from typing import ClassVar

from tui.widgets.canvas import Canvas, Row, clip

_KEPT = 500


class LogTail(Canvas):
    COMPONENT_CLASSES: ClassVar[set[str]] = {"log--time", "log--plain", "log--good", "log--warn", "log--bad"}

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._lines: deque[tuple[float, str, str]] = deque(maxlen=_KEPT)
        self._back = 0  # lines scrolled away from the newest

    def add(self, t: float, text: str, tone: str) -> None:
        """A line; ``tone`` is plain, good, warn or bad. The view stays where it is while it is scrolled back."""
        self._lines.append((t, text, tone))
        if self._back:
            self._back += 1

    def scroll_by(self, lines: int) -> None:
        self._back = max(0, min(self._back + lines, len(self._lines) - self.size.height))
        self.redraw()

    def draw(self, width: int, height: int) -> list[Row]:
        end = len(self._lines) - self._back
        shown = list(self._lines)[max(0, end - height) : end]
        rows: list[Row] = []
        for t, text, tone in shown:
            stamp = time.strftime(" %H:%M:%S ", time.localtime(t))
            rows.append([(stamp, "log--time"), (clip(text, width - len(stamp)), f"log--{tone}")])
        if self._back and rows:
            rows[-1] = [(f" {self._back} newer lines below: j", "log--time")]
        return rows
