"""Dialogs in a terminal of a few lines: what has the focus is on screen, and so are the keys."""

from __future__ import annotations

from typing import Any

import pytest

from engine.runs.store import RunStore
from tests.unit.tui.helpers import monitor, on_screen, text_of, until
from tui.app.app import MlaApp
from tui.app.base import AppModal
from tui.app.screens.confirm import ConfirmScreen
from tui.app.screens.pane_picker import PanePicker
from tui.app.screens.tuning import TuningScreen
from tui.app.widgets.dialog import Dialog


def is_seen(app: MlaApp, selector: str = "") -> bool:
    """Return whether the widget, or the one with the focus, has all of its lines and its beginning in the dialog."""
    dialog = app.screen.query_one(Dialog)
    widget = app.screen.query_one(selector) if selector else app.focused
    assert widget is not None
    inside = widget.region.intersection(dialog.content_region)
    return inside.width > 3 and inside.x == widget.region.x and inside.height == widget.region.height > 0


@pytest.mark.parametrize("size", [(20, 5), (30, 8), (40, 12)])
async def test_what_has_the_focus_and_the_keys_are_on_screen(store: RunStore, make_run: Any, size: Any) -> None:
    run, _ = make_run("demo", 5, phase="running")
    app = MlaApp(store, run.id)
    dialogs: list[tuple[str, type[AppModal[Any]], int, str]] = [
        ("S", ConfirmScreen, 3, "Enter"),
        ("e", TuningScreen, 5, "Enter"),
        ("f", PanePicker, 1, "Space"),
    ]
    async with app.run_test(size=size) as pilot:
        for key, screen, fields, named in dialogs:
            await pilot.press(key)
            await until(pilot, lambda screen=screen: isinstance(app.screen, screen))  # type: ignore[misc]
            dialog = app.screen.query_one(Dialog)
            for _ in range(fields):
                await until(pilot, lambda: is_seen(app))
                await pilot.press("tab")
            if screen is ConfirmScreen:  # what stands above can be read
                await pilot.press("pageup")
                await until(pilot, lambda dialog=dialog: dialog.scroll_offset.y == 0)  # type: ignore[misc]
            keys = str(dialog.border_subtitle)
            assert named in keys and len(keys) <= dialog.outer_size.width - 6
            await pilot.press("escape")


async def test_why_a_value_is_refused_is_brought_on_screen(store: RunStore, make_run: Any) -> None:
    run, _ = make_run("demo", 5, phase="running")
    app = MlaApp(store, run.id)
    async with app.run_test(size=(40, 7)) as pilot:
        await pilot.press("e")
        await until(pilot, lambda: isinstance(app.screen, TuningScreen) and "GiB" in on_screen(app, "#forecast"))
        await pilot.press("3", "enter")
        assert "micro can be 1, 2, 4, 8" in text_of(app, "#verdict")
        await until(pilot, lambda: is_seen(app, "#verdict"))
        await pilot.press("backspace", "2")
        await until(pilot, lambda: is_seen(app))


async def test_no_digit_of_a_number_is_cut_off(store: RunStore, make_run: Any) -> None:
    run, _ = make_run("demo", 5, phase="running")
    app = MlaApp(store, run.id)
    async with app.run_test(size=(40, 20)) as pilot:
        await until(pilot, lambda: monitor(app).view.last("lr") is not None)
        await pilot.press("f")
        await until(pilot, lambda: "lr " in on_screen(app, "#metrics"))
        assert "3.00e-3" in on_screen(app, "#metrics")
        await pilot.press("q", "e")
        await until(pilot, lambda: "GiB" in on_screen(app, "#forecast"))
        assert on_screen(app, "#forecast").splitlines()[0].rstrip().endswith("GiB")
        await until(pilot, lambda: "micro 8→4" in on_screen(app, "#levers"))
        ends = [line.rstrip().split()[-1] for line in on_screen(app, "#levers").splitlines()[2:]]
        assert ends and all(end in ("MiB", "GiB") for end in ends), ends
