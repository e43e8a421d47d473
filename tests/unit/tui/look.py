"""What a test sees of the app, and how it waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from textual.pilot import Pilot
from textual.widget import Widget
from textual.widgets import Static

from tui.app.app import MlaApp
from tui.app.widgets.selectable_list import SelectableList


async def until(pilot: Pilot[Any], holds: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for a condition, not for a time."""
    async with asyncio.timeout(seconds):
        while not holds():
            await pilot.pause(0.02)


def seen(widget: Widget) -> str:
    """What a widget shows."""
    return "\n".join(widget.render_line(y).text for y in range(widget.size.height))


def on_screen(app: MlaApp, selector: str | type[Widget]) -> str:
    found = app.screen.query(selector)
    return seen(found.first()) if found else ""


def toasts(app: MlaApp) -> list[str]:
    """The messages of the notifications, oldest first; Textual has no public list of them."""
    return [toast.message for toast in app._notifications]


def said(app: MlaApp, selector: str) -> str:
    found = app.screen.query(selector)
    return str(found.first(Static).content) if found else ""


def chosen(selectable: SelectableList) -> str:
    """The item under the cursor."""
    return "".join(text for text, _ in selectable.row(selectable.cursor, 80))
