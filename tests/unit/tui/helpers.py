"""Reads the text on the screen of the app under test, and waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from textual.pilot import Pilot
from textual.widget import Widget
from textual.widgets import Static

from tui.app.app import MlaApp
from tui.app.screens.monitor import MonitorScreen
from tui.app.widgets.selectable_list import SelectableList


async def until(pilot: Pilot[Any], condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until ``condition`` holds; ``TimeoutError`` after ``seconds``."""
    async with asyncio.timeout(seconds):
        while not condition():
            await pilot.pause(0.02)


def rendered(widget: Widget) -> str:
    """Return the text that a widget draws."""
    return "\n".join(widget.render_line(y).text for y in range(widget.size.height))


def on_screen(app: MlaApp, selector: str | type[Widget]) -> str:
    found = app.screen.query(selector)
    return rendered(found.first()) if found else ""


def toasts(app: MlaApp) -> list[str]:
    """Return the notifications, oldest first; Textual has no public list of them."""
    return [toast.message for toast in app._notifications]


def text_of(app: MlaApp, selector: str) -> str:
    found = app.screen.query(selector)
    return str(found.first(Static).content) if found else ""


def selected_row(selectable: SelectableList) -> str:
    """Return the text of the selected row."""
    return "".join(text for text, _ in selectable.row(selectable.cursor, 80))


def monitor(app: MlaApp) -> MonitorScreen:
    assert isinstance(app.screen, MonitorScreen)
    return app.screen


async def opened(pilot: Pilot[Any], app: MlaApp, steps: int) -> None:
    """Wait until the monitor has read every step of its run."""
    await until(pilot, lambda: f"({steps})" in on_screen(app, "#pane-1"))
