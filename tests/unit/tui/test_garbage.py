"""What lives as long as the app is searched for garbage once; what a closed screen leaves is found."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from engine.runs.store import RunStore
from tests.unit.tui.helpers import until
from tui.app.app import MlaApp
from tui.app.screens.settings import SettingsScreen
from tui.app.terminal.garbage import collect_once_started


class _Cycle:
    def __init__(self) -> None:
        self.self = self


@pytest.fixture
def freezing() -> Iterator[None]:
    before = list(gc.callbacks)
    collect_once_started(0.0).join()
    yield
    gc.callbacks[:] = before
    gc.unfreeze()


def test_nothing_is_collected_while_the_app_starts() -> None:
    timer = collect_once_started()
    try:
        assert not gc.isenabled()
    finally:
        timer.cancel()
        gc.enable()


def test_what_a_full_search_leaves_is_not_searched_again(freezing: None) -> None:
    assert gc.isenabled()
    kept: list[list[int]] = [[] for _ in range(10_000)]
    gc.collect()
    assert len(gc.get_objects()) < len(kept)
    new = _Cycle()
    seen = weakref.ref(new)
    del new
    gc.collect()
    assert seen() is None


async def test_a_closed_screen_is_freed(freezing: None, store: RunStore) -> None:
    app = MlaApp(store)
    async with app.run_test() as pilot:
        screen = SettingsScreen()
        await app.push_screen(screen)
        seen = weakref.ref(screen)
        del screen
        gc.collect()
        assert len(app.screen_stack) == 2
        await pilot.press("q")
        await until(pilot, lambda: len(app.screen_stack) == 1)
        await until(pilot, lambda: gc.collect() >= 0 and seen() is None)
