"""Runs the Textual app: the list of runs, with other screens on top of it. Runs continue when the app ends."""

from __future__ import annotations

import engine.host.light_asyncio  # noqa: F401, before anything that imports asyncio

# isort: split
import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, ClassVar

from rich.console import RenderableType
from textual import events, on, work
from textual.actions import ActionParseResult
from textual.app import App
from textual.await_complete import AwaitComplete
from textual.command import Provider
from textual.dom import DOMNode
from textual.message import Message
from textual.notifications import SeverityLevel
from textual.screen import Screen

from profiles.errors import UserError
from tui.app.actions.action import Action, ActionSet, key_name
from tui.app.actions.registry import EVERYWHERE
from tui.app.base import AppScreen, BaseApp
from tui.app.settings import Settings
from tui.app.terminal import clipboard
from tui.app.terminal.cell_diff import CellDiffApp
from tui.app.terminal.garbage import thaw
from tui.app.terminal.key_queue import KeyQueue
from tui.app.terminal.rebind import rebind
from tui.app.themes import THEMES, THEMES_16, theme_for
from tui.app.widgets.bars import KeyBar
from tui.text.ellipsis import wrap

if TYPE_CHECKING:
    from engine.events.run_dir import RunDir
    from engine.runs.store import RunStore
    from tui.app.state.run_watcher import RunNotification

_TOAST = 10.0  # seconds that a notification about a run is shown
_TOAST_FRAME = 3  # cells of its border and padding


def _action_provider() -> type[Provider]:
    from tui.app.palette import ActionProvider

    return ActionProvider


class MlaApp(CellDiffApp, BaseApp, actions=EVERYWHERE):
    """Shows the runs of ``store``, or the monitor of ``run_id`` if it is given.

    ``settings_errors`` has a line for each refused setting. ``read_only`` refuses the actions marked ``changes``.
    ``first_start``: propose a profile for this machine. Raises ``UserError`` if there is no such run.
    """

    TITLE = "mla-tui"
    # Textual does not load the styles of the default screen, so those of HomeScreen are here.
    CSS_PATH: ClassVar[list[str | PurePath]] = ["styles/app.tcss", "styles/home.tcss"]
    COMMANDS: ClassVar[set[type[Provider] | Callable[[], type[Provider]]]] = {_action_provider}

    class Notified(Message):
        """What happened to runs."""

        def __init__(self, notifications: list[RunNotification]) -> None:
            super().__init__()
            self.notifications = notifications

    def __init__(
        self,
        store: RunStore,
        run_id: str | None = None,
        *,
        settings: Settings | None = None,
        settings_errors: Sequence[str] = (),
        read_only: bool = False,
        first_start: bool = False,
    ) -> None:
        super().__init__()
        self.store = store
        self.settings = settings or Settings()
        self.settings_errors = settings_errors
        self.read_only = read_only
        self._first_start = first_start
        self.exiting = False
        self._toasts: list[str] = []  # the notifications on screen
        self.animation_level = "none"  # an animation costs bytes over ssh and says nothing
        for theme in (*THEMES, *THEMES_16):
            self.register_theme(theme)
        self.theme = theme_for(self.settings.theme, self.console.color_system)
        self._first_run = store.find(run_id) if run_id is not None else None
        self._keys = KeyQueue(self, super().on_event)

    async def on_event(self, event: events.Event) -> None:
        if not isinstance(event, (events.Key, events.Paste)) or event.is_forwarded:
            await super().on_event(event)
        else:
            self._keys.put(event)

    def get_default_screen(self) -> Screen[Any]:
        from tui.app.screens.home import HomeScreen

        return HomeScreen(self.store)

    def get_theme_variable_defaults(self) -> dict[str, str]:
        return dict(THEMES[0].variables)

    def on_mount(self) -> None:
        self.run_worker(self._keys.deliver(), group="keys")
        self.screen_change_signal.subscribe(self, self._bind)
        self.screen_change_signal.subscribe(self, self._make_room)
        self.apply(self.settings)
        for line in self.settings_errors:
            self.notify(line, severity="warning", timeout=_TOAST)
        if self._first_run is not None:
            self.open_run(self._first_run)
        elif self._first_start:
            self.open_proposal()
        self.watch_runs()

    # Settings

    def apply(self, settings: Settings) -> None:
        self.settings = settings
        self.theme = theme_for(settings.theme, self.console.color_system)
        self._bind(self)
        for screen in self.screen_stack:
            self._bind(screen)
            for bar in screen.query(KeyBar):
                bar.redraw()

    def _bind(self, node: Screen[Any] | App[Any]) -> None:
        if isinstance(node, AppScreen | BaseApp):
            keys = self.settings.keys
            rebind(node, {action.id: action.with_keys(keys).keys for action in node.actions.own if action.id in keys})

    def offered(self, actions: ActionSet) -> list[Action]:
        return actions.offered(self.settings.keys, self.read_only)

    def exit(self, result: int | None = None, return_code: int = 0, message: RenderableType | None = None) -> None:
        self.exiting = True
        super().exit(result, return_code, message)

    def pop_screen(self) -> AwaitComplete:
        thaw()  # what the screen leaves
        return super().pop_screen()

    def bell(self) -> None:
        if self.settings.bell:
            super().bell()

    def copy_to_clipboard(self, text: str) -> None:
        super().copy_to_clipboard(text)
        if clipboard.inside_tmux():
            self.run_worker(partial(clipboard.copy_to_tmux, text), thread=True, group="clipboard")

    def notify(
        self,
        message: str,
        *,
        title: str = "",
        severity: SeverityLevel = "information",
        timeout: float | None = None,
        markup: bool = False,
    ) -> None:
        """Show ``message`` as plain text, whatever ``markup`` says: names, paths and errors may contain brackets."""
        seconds = self.NOTIFICATION_TIMEOUT if timeout is None else timeout
        super().notify(message, title=title, severity=severity, timeout=seconds, markup=False)
        self._toasts.append(message)
        self._make_room(self)
        self.set_timer(seconds, partial(self._forget_toast, message))

    def _forget_toast(self, message: str) -> None:
        self._toasts.remove(message)
        self._make_room(self)

    def _make_room(self, _: object) -> None:
        """Make the key bar as high as the notifications on screen, which cover it and so no data."""
        lines = sum(len(wrap(message, self.size.width - _TOAST_FRAME)) for message in self._toasts)
        for screen in self.screen_stack[-1:]:  # none while the app ends
            for bar in screen.query(KeyBar):
                bar.styles.height = max(lines, 1)

    def on_resize(self) -> None:
        self.call_after_refresh(self._make_room, self)

    def action_help_quit(self) -> None:
        """Name the key that quits: Textual binds this to Ctrl+C, which copies and does not quit."""
        keys = next(action.keys for action in self.offered(self.actions) if action.id == "quit_app")
        self.notify(f"{key_name(keys[0])} quits the app; runs continue", timeout=5)

    async def run_action(
        self,
        action: str | ActionParseResult,
        default_namespace: DOMNode | None = None,
        namespaces: Mapping[str, DOMNode] | None = None,
    ) -> bool:
        """Run an action of a key, a click or the palette; only here are actions refused in a read-only app."""
        if self.exiting:
            return True  # typed after the key that quits the app
        node, refused = default_namespace or self.screen, None
        if self.read_only and isinstance(node, AppScreen) and isinstance(action, str):
            refused = node.actions.changing(action)
        if refused is None:
            return await super().run_action(action, default_namespace, namespaces)
        line = f"read-only: {refused.title.lower()} is refused; to change runs start mla-tui without --read-only"
        self.notify(line, severity="warning")
        return True

    # Notifications about runs

    @work(group="runs")
    async def watch_runs(self) -> None:
        from tui.app.state.run_watcher import POLL_INTERVAL, RunWatcher

        watcher = RunWatcher(self.store)
        while True:
            if notifications := await asyncio.to_thread(watcher.poll):
                self.post_message(self.Notified(notifications))
            await asyncio.sleep(POLL_INTERVAL)

    @on(Notified)
    def _show_notifications(self, message: Notified) -> None:
        """Show what happened, except to the run whose monitor is on screen, even if a dialog is over it."""
        screen = next((screen for screen in reversed(self.screen_stack) if not screen.is_modal), None)
        run = getattr(screen, "run", None)
        shown = [one for one in message.notifications if run is None or one.run_id != run.id]
        for one in shown:
            self.notify(one.text, severity="error" if one.needs_attention else "information", timeout=_TOAST)
        if shown:
            self.bell()

    # Other screens

    def open_run(self, run: RunDir) -> None:
        from tui.app.screens.monitor import MonitorScreen

        self.push_screen(MonitorScreen(run))

    def open_new_run(self) -> None:
        from tui.app.screens.new_run import NewRunScreen

        self.push_screen(NewRunScreen(self.store))

    def open_proposal(self) -> None:
        from tui.app.screens.proposal import ProposalScreen

        self.push_screen(ProposalScreen(), self._proposed)

    def _proposed(self, path: Path | None) -> None:
        from tui.app.first_start import remember_start

        if path is not None:
            self.notify(f"{path} is written; n starts a run with it", timeout=_TOAST)
        elif self._first_start:
            remember_start()
            self.notify("i proposes a profile again", timeout=5)
        self._first_start = False

    def open_compare(self, runs: list[RunDir], hint: str = "") -> None:
        from tui.app.screens.compare import CompareScreen
        from tui.app.state.comparison import check_run_count

        check_run_count(len(runs))
        self.push_screen(CompareScreen(runs, hint))

    def open_checkpoints(self, id: str) -> None:
        from tui.app.screens.checkpoints import CheckpointsScreen

        try:
            self.push_screen(CheckpointsScreen(self.store, self.store.find(id)))
        except UserError as error:
            self.notify(str(error), severity="error")

    def open_data(self, source: str | None) -> None:
        from profiles.registry import detect_profile
        from tui.app.screens.data import DataScreen

        self.push_screen(DataScreen(source or detect_profile()))

    def open_help(self, actions: ActionSet) -> None:
        from tui.app.screens.help import HelpScreen

        self.push_screen(HelpScreen(actions))

    def action_help(self) -> None:
        if isinstance(self.screen, AppScreen):
            self.open_help(self.screen.actions)

    def action_settings(self) -> None:
        from tui.app.screens.settings import SettingsScreen

        if isinstance(self.screen, SettingsScreen):
            self.screen.action_back()
        else:
            self.push_screen(SettingsScreen())
