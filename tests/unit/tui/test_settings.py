"""Settings: the file, the screen, custom keys, and themes."""

from __future__ import annotations

import tomllib
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from textual.color import Color
from textual.widgets import Input, OptionList

from engine.events.types import Step
from engine.runs.store import RunStore
from profiles.errors import SpecError
from tests.unit.tui.helpers import on_screen, text_of, toasts, until
from tui.app import custom_keys, settings
from tui.app.actions.action import key_name
from tui.app.actions.registry import HOME, MONITOR, SCREENS
from tui.app.app import MlaApp
from tui.app.screens.help import HelpLines
from tui.app.screens.monitor import MonitorScreen
from tui.app.screens.new_run import NewRunScreen
from tui.app.screens.pane_grid import PaneGrid
from tui.app.screens.settings import KeyScreen, SettingsScreen
from tui.app.settings import Settings
from tui.app.terminal.refresh_rate import RefreshRate
from tui.app.themes import THEMES, THEMES_16, theme_for

pytestmark = pytest.mark.usefixtures("store")  # whose configuration is a directory of its own


def write(text: str) -> Path:
    path = settings.settings_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_without_a_file_the_defaults_are_used() -> None:
    assert settings.load() == (Settings(), [])


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('theme = "solarized"', "theme: 'solarized' is not one of dark, light"),
        ("refresh = 0", "refresh: 0 is not in 0.5..60 seconds"),
        ("refresh = nan", "refresh: nan is not in 0.5..60 seconds"),
        ("refresh = true", "refresh: True is not in 0.5..60 seconds"),
        ('bell = "no"', "bell: 'no' is not true or false"),
        ("low_bandwith = true", "low_bandwith: True: unknown entry; did you mean low_bandwidth?"),
        ("xyzzy = 1", "xyzzy: 1: unknown entry; there are theme, refresh, low_bandwidth, bell, panes, keys"),
        ("keys = 3", "keys: 3 is not a table"),
        ("[keys]\nmaximize = 3", 'keys.maximize: 3 is not text; write maximize = "Z"'),
        ('[keys]\nmaximise = "Z"', "keys.maximise: no such action; did you mean maximize?"),
        ('[keys]\ndown = "J"', "keys.down: belongs to every list"),
        ('[keys]\nmaximize = ""', "keys.maximize: '' is not a key"),
        ('[keys]\nmaximize = "ctrl+shift+x"', "keys.maximize: 'ctrl+shift+x' is not sent by every terminal"),
        ('[keys]\nmaximize = "alt+z"', "keys.maximize: 'alt+z' is not sent by every terminal"),
        ('[keys]\nmaximize = "ctrl+i"', "keys.maximize: 'ctrl+i' is Tab to a terminal"),
        ('[keys]\nmaximize = "p"', "keys.maximize: 'p' is Pause (pause) on Monitor; use another key"),
        ('[keys]\nmaximize = "ctrl+p"', "keys.maximize: 'Ctrl+P' is Commands (palette) everywhere"),
        ("theme = ", "not valid TOML"),
        ("\ufeff\x00", "not valid TOML"),
    ],
)
def test_an_invalid_entry_is_reported_and_the_others_are_used(text: str, line: str) -> None:
    broken = "not valid" in line
    path = write(text if broken else f"{'' if 'bell' in text else 'bell = false'}\n{text}\n")
    found, settings_errors = settings.load()
    assert len(settings_errors) == 1 and settings_errors[0].startswith(f"{path}: {line}")
    assert found == Settings(bell=broken or "bell" in text)


def test_keys_can_be_swapped_and_a_conflicting_line_is_ignored() -> None:
    write('[keys]\nmaximize = "s"\nsmooth = "z F6"\nstop = "e"\n')
    found, settings_errors = settings.load()
    assert found.keys == {"maximize": ("s",), "smooth": ("z", "f6")}
    assert len(settings_errors) == 1 and "keys.stop: 'e' is Rename (rename) on Runs" in settings_errors[0]


@pytest.mark.parametrize("text", ["", "shift+x", "super+a", "F13", "ctrl+c", "ctrl+1", "ö", "enter", "space", "é"])
def test_keys_that_not_every_terminal_sends_are_refused(text: str) -> None:
    with pytest.raises(SpecError):
        custom_keys.parse(text)


@pytest.mark.parametrize(("text", "key"), [("Z", "Z"), ("?", "question_mark"), ("f6", "f6"), ("CTRL+T", "ctrl+t")])
def test_keys_are_parsed_as_users_write_them(text: str, key: str) -> None:
    assert custom_keys.parse(text) == key
    assert custom_keys.parse(key_name(key)) == key


def test_esc_still_goes_back_when_back_has_another_key() -> None:
    keys = {"back": custom_keys.own_keys("back", "b")}
    on_each = {actions.title: [a.keys for a in actions.offered(keys) if a.id == "back"] for actions in SCREENS}
    assert on_each["New run"] == [("b", "escape")] and on_each["Runs"] == []
    assert on_each["Monitor"] == [("b",)]  # there Esc closes what was opened last


def test_storing_changes_only_one_line_of_the_file() -> None:
    write('# mine\ntheme = "dark" # for now\n\nfuture = 3\n[keys]\nmaximize = "Z"\n\n[other]\nbell = 1\n')
    settings.store("theme", "light")
    settings.store("refresh", 2.0)
    settings.store("stop", "X", "keys")
    settings.store("maximize", None, "keys")
    text = settings.settings_path().read_text()
    assert text == '# mine\ntheme = "light"\n\nfuture = 3\nrefresh = 2\n[keys]\nstop = "X"\n\n[other]\nbell = 1\n'


def test_a_symbolic_link_to_the_file_stays_one(tmp_path: Path) -> None:
    path = write("")
    kept = tmp_path / "dotfiles.toml"
    kept.write_text("bell = true\n")
    path.unlink()
    path.symlink_to(kept)
    settings.store("bell", False)
    assert path.is_symlink() and kept.read_text() == "bell = false\n"


@pytest.mark.parametrize(
    "text", ["theme = ", 'keys = {maximize = "Z"}\nbell = [\n]', '"b\\u0065ll" = true\n"k\\u0065ys".zoom = "Z"']
)
def test_a_file_that_cannot_be_edited_line_by_line_is_not_changed(text: str) -> None:
    path = write(text)
    for change in (("maximize", "X", "keys"), ("bell", False)):
        with pytest.raises(SpecError, match=r"settings\.toml"):
            settings.store(*change)
    assert path.read_text() == text


async def test_the_app_starts_with_the_default_and_reports_it(store: RunStore) -> None:
    path = write('theme = "pink"')
    found, settings_errors = settings.load()
    app = MlaApp(store, settings=found, settings_errors=settings_errors)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: bool(toasts(app)))
        assert str(path) in toasts(app)[0]
        assert app.current_theme.dark
        await pilot.press("f2")
        await until(pilot, lambda: isinstance(app.screen, SettingsScreen))
        assert "'pink' is not one of" in text_of(app, "#message")


@pytest.mark.parametrize("size", [(80, 24), (60, 20)])
async def test_a_change_applies_at_once_and_is_stored(store: RunStore, size: tuple[int, int]) -> None:
    app = MlaApp(store)
    async with app.run_test(size=size) as pilot:
        await pilot.press("comma")
        await until(pilot, lambda: isinstance(app.screen, SettingsScreen))
        await pilot.press("enter", "j", "enter", "j", "enter", "j", "enter")
        assert not app.current_theme.dark
        assert app.settings == Settings(theme="light", refresh=2.0, low_bandwidth=True, bell=False)
        assert (app.settings.number_every, app.settings.chart_every) == (3.0, 6.0)
        stored = {"theme": "light", "refresh": 2, "low_bandwidth": True, "bell": False}
        assert tomllib.loads(settings.settings_path().read_text()) == stored
        await pilot.press("d", "k", "d")
        assert app.settings == Settings(theme="light", refresh=2.0)
        if size == (60, 20):
            assert on_screen(app, "#whole").strip() == "numbers every 3 s, charts every 6 s"  # clipped above
        await pilot.press("k", "k")
        assert size == (60, 20) or not on_screen(app, "#whole").strip()
        await pilot.click("#settings", offset=(3, 0))
        assert app.settings == Settings(refresh=2.0)
        await pilot.press("f2")
        await until(pilot, lambda: not isinstance(app.screen, SettingsScreen))


async def test_a_key_is_changed_by_pressing_the_new_one(store: RunStore, make_run: Any) -> None:
    run, _ = make_run("demo", 20)
    app = MlaApp(store, run.id)
    async with app.run_test(size=(100, 40)) as pilot:
        await pilot.press("f2")
        await until(pilot, lambda: isinstance(app.screen, SettingsScreen))
        table: Any = app.screen.query_one("#settings")
        table.move(4 + [action.id for action in table.changeable].index("maximize"))

        def says(text: str) -> bool:
            return text in text_of(app, "#message")

        for press, line in (("p", "'p' is Pause (pause) on Monitor"), ("ctrl+shift+x", "is not sent by every")):
            await pilot.press("enter", press)
            await until(pilot, partial(says, line))
            assert not app.settings.keys
        await pilot.press("enter", "escape")
        await until(pilot, lambda: isinstance(app.screen, SettingsScreen))
        assert not app.settings.keys
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, KeyScreen))
        await pilot.press("Z", "q")
        await until(pilot, lambda: isinstance(app.screen, MonitorScreen))
        assert tomllib.loads(settings.settings_path().read_text()) == {"keys": {"maximize": "Z"}}
        await until(pilot, lambda: " Z Maximize" in on_screen(app, "KeyBar"))
        await pilot.press("z")
        assert app.screen.query_one(PaneGrid).maximized is None
        await pilot.press("Z")
        assert app.screen.query_one(PaneGrid).maximized is not None
        await pilot.press("question_mark")
        await until(pilot, lambda: "Z       Maximize" in on_screen(app, HelpLines))
        await pilot.press("q", "ctrl+p", *"Maximize")
        await until(pilot, lambda: any(found.option_count for found in app.screen.query(OptionList)))
        assert "(Z)" in str(app.screen.query_one(OptionList).get_option_at_index(0).prompt)


async def test_a_custom_key_is_only_a_letter_in_a_text_field(store: RunStore) -> None:
    app = MlaApp(store, settings=Settings(keys={"back": ("b",), "new_run": ("N",)}))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("n")
        assert not isinstance(app.screen, NewRunScreen)
        await pilot.press("N")
        await until(pilot, lambda: isinstance(app.screen, NewRunScreen))
        app.screen.query_one("#name", Input).focus()
        await pilot.press("b", "q")
        assert app.screen.query_one("#name", Input).value == "bq"
        await pilot.press("shift+tab", "shift+tab", "q")
        assert isinstance(app.screen, NewRunScreen)
        await pilot.press("b")
        await until(pilot, lambda: not isinstance(app.screen, NewRunScreen))


async def test_the_bell_rings_only_if_it_is_on(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    rung: list[bool] = []
    monkeypatch.setattr("textual.app.App.bell", lambda app: rung.append(True))
    app = MlaApp(store, settings=Settings(bell=False))
    app.bell()
    app.settings = Settings()
    app.bell()
    assert rung == [True]


async def test_charts_are_drawn_less_often_than_numbers(store: RunStore, make_run: Any) -> None:
    run, writer = make_run("demo", 20, phase="running")
    app = MlaApp(store, run.id, settings=Settings(refresh=60.0))
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: "(20)" in on_screen(app, "#pane-1"))
        await until(pilot, lambda: not app.screen._charts.due())  # type: ignore[attr-defined]
        writer.write(Step(step=21, loss=4.0, lr=1e-3, grad_norm=1.0, tok_s=4000.0, step_s=0.5, host_states=0))
        await until(pilot, lambda: "step 21" in on_screen(app, "StatusLine"))
        assert "(20)" in on_screen(app, "#pane-1")
        await pilot.press("y")
        await until(pilot, lambda: "(21)" in on_screen(app, "#pane-1"))


def test_the_refresh_rate_follows_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    now, every = [0.0], [2.0]
    monkeypatch.setattr("tui.app.terminal.refresh_rate.time.monotonic", lambda: now[0])
    pace = RefreshRate(lambda: every[0])
    assert pace.due() and not pace.due()
    now[0] = 1.0
    assert not pace.due()
    every[0] = 1.0
    assert pace.due()


def test_offered_actions_have_custom_keys_and_respect_read_only() -> None:
    changed = {"maximize": ("Z",)}
    assert [action.keys for action in MONITOR.offered(changed) if action.id == "maximize"] == [("Z",)]
    assert [action.id for action in HOME.offered(read_only=True) if action.changes] == []


# Colours


def _linear(channel: int) -> float:
    part = channel / 255
    return part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4


def _contrast(a: Color, b: Color) -> float:
    """As WCAG 2 counts it."""
    lights = sorted(0.2126 * _linear(c.r) + 0.7152 * _linear(c.g) + 0.0722 * _linear(c.b) for c in (a, b))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


_SEEN_BY = {  # Machado, Oliveira, Fernandes 2009, severity 1, in linear light
    "protan": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deutan": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritan": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}


def _lab(color: Color, seen_by: str) -> tuple[float, ...]:
    rgb = [_linear(channel) for channel in color.rgb]
    rgb = [min(max(sum(m * c for m, c in zip(row, rgb, strict=True)), 0), 1) for row in _SEEN_BY[seen_by]]
    to_xyz = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
    white = (0.9505, 1.0, 1.089)
    xyz = [sum(m * c for m, c in zip(row, rgb, strict=True)) / w for row, w in zip(to_xyz, white, strict=True)]
    x, y, z = (v ** (1 / 3) if v > 0.008856 else 7.787 * v + 16 / 116 for v in xyz)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
def test_every_text_has_enough_contrast(theme: Any) -> None:
    found = {**theme.to_color_system().generate(), **theme.variables}
    grounds = [Color.parse(found[name]) for name in ("background", "surface", "panel")]
    texts = [name for name in found if name.startswith("text-") and name.count("-") == 1 and "auto" not in found[name]]
    texts = [name for name in texts if name not in ("text-muted", "text-disabled")]
    assert len(texts) == 6
    weak = [
        n for n in [*texts, "foreground", "quiet"] if min(_contrast(Color.parse(found[n]), g) for g in grounds) < 4.5
    ]
    assert weak == []
    assert _contrast(Color.parse(found["faint"]), grounds[0]) > 3


@pytest.mark.parametrize("seen_by", _SEEN_BY)
@pytest.mark.parametrize("theme", [*THEMES, *THEMES_16], ids=lambda theme: theme.name)
def test_good_and_bad_differ_for_colour_blind_users(theme: Any, seen_by: str) -> None:
    found = {**theme.to_color_system().generate(), **theme.variables}
    for first, second in (("text-success", "text-error"), ("success", "error"), ("text-primary", "text-accent")):
        a, b = (_lab(Color.parse(found[name]), seen_by) for name in (first, second))
        assert sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) ** 0.5 > 20, (first, second)


def test_every_theme_has_every_variable_and_16_colours_stay_distinct() -> None:
    assert len({frozenset(theme.variables) for theme in (*THEMES, *THEMES_16)}) == 1
    names = {theme.name for theme in (*THEMES, *THEMES_16)}
    assert {theme_for(theme.name, system) for theme in THEMES for system in ("standard", "256", None)} == names
    for theme in THEMES_16:
        colours = {theme.variables[name] for name in ("text-primary", "text-error", "quiet")}
        assert len(colours) == 3
