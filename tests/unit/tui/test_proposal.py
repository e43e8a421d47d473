"""The dialog that proposes a profile: at the first start, and later from the list of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.memory import hardware as hardware_module
from engine.memory.hardware import Hardware
from engine.runs.store import RunStore
from profiles.registry import load, user_folder
from tests.unit.tui.helpers import text_of, toasts, until
from tui.app.app import MlaApp
from tui.app.first_start import is_first_start
from tui.app.screens.home import HomeScreen
from tui.app.screens.proposal import ProposalScreen
from tui.app.settings import settings_path
from tui.app.widgets.dialog import TextDialog

GB = 1 << 30


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> list[Hardware]:
    found = [Hardware("a cpu", "cpu", None, None, 16 * GB, 12 * GB)]
    monkeypatch.setattr(hardware_module, "detect_hardware", lambda cards=1: found[-1])
    return found


def keys(app: MlaApp) -> str:
    return str(app.screen.query_one(TextDialog).border_subtitle)


def proposed(app: MlaApp) -> bool:
    return isinstance(app.screen, ProposalScreen) and "Enter writes" in keys(app)


async def test_enter_writes_what_was_found_at_the_first_start_and_later_under_another_name(store: RunStore) -> None:
    assert is_first_start(store)
    app = MlaApp(store, first_start=True)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: proposed(app))
        assert text_of(app, "#found") == "CPU     a cpu\nRAM     12.0 of 16.0 GiB free"
        assert "model   mla-tiny, as in cpu_demo" in text_of(app, "#proposed")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, HomeScreen))
        path = user_folder() / "here.toml"
        assert toasts(app)[-1] == f"{path} is written; n starts a run with it"
        assert load("here").model.name == "mla-tiny" and not is_first_start(store)
        before = path.read_text()
        await pilot.press("i")
        await until(pilot, lambda: proposed(app))
        assert keys(app) == "Enter writes it as profile “here_2”, Esc skips"
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, HomeScreen))
        assert (user_folder() / "here_2.toml").exists() and path.read_text() == before


async def test_it_is_skipped_for_good(store: RunStore) -> None:
    app = MlaApp(store, first_start=True)
    async with app.run_test(size=(60, 20)) as pilot:
        await until(pilot, lambda: proposed(app))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, HomeScreen))
        assert not user_folder().exists() and settings_path().read_text() == ""
        assert not is_first_start(store) and toasts(app) == ["i proposes a profile again"]


async def test_what_hinders_it_is_one_line_in_the_dialog(store: RunStore, machine: list[Hardware]) -> None:
    user_folder().parent.mkdir(parents=True)
    user_folder().write_text("")  # a file where the folder should be
    app = MlaApp(store, first_start=True)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: proposed(app))
        await pilot.press("enter")
        await until(pilot, lambda: "set XDG_CONFIG_HOME" in text_of(app, "#message"))
        await pilot.press("q")
        machine.append(Hardware("a cpu", "cpu", None, None, GB, GB // 8))
        await pilot.press("i")
        await until(pilot, lambda: "no profile fits into 0.1 GiB of free RAM" in text_of(app, "#message"))
        await pilot.press("enter")
        assert isinstance(app.screen, ProposalScreen)


@pytest.mark.parametrize("existing", ["a run", "settings", "a profile"])
def test_who_has_something_already_is_not_asked(existing: str, store: RunStore, make_run: Any, tmp_path: Path) -> None:
    if existing == "a run":
        make_run("demo", 1)
    elif existing == "settings":
        settings_path().parent.mkdir(parents=True)
        settings_path().write_text("bell = false\n")
    else:
        user_folder().mkdir(parents=True)
        (user_folder() / "mine.toml").write_text('extends = "cpu_demo"\n')
    assert not is_first_start(store)
