"""Declares the API of the app for screens and widgets, so that they need not import it; ``MlaApp`` implements it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from textual import getters
from textual.app import App
from textual.reactive import Reactive
from textual.screen import ModalScreen, Screen, ScreenResultType
from textual.widget import Widget

from tui.app.actions.action import Action, ActionSet, HasActions
from tui.app.settings import Settings

if TYPE_CHECKING:
    from engine.events.run_dir import RunDir
    from engine.runs.store import RunStore


class BaseApp(HasActions, App[int]):
    """``settings_errors`` has a line for each refused setting. ``read_only`` refuses the actions marked ``changes``."""

    store: RunStore
    settings: Settings
    settings_errors: Sequence[str]
    read_only: bool

    @abstractmethod
    def apply(self, settings: Settings) -> None:
        """Apply ``settings`` to every screen."""

    @abstractmethod
    def offered(self, actions: ActionSet) -> list[Action]:
        """Return the actions of a screen with the user's own keys, without those that are refused."""

    @abstractmethod
    def open_help(self, actions: ActionSet) -> None:
        """Show the keys of a screen."""

    @abstractmethod
    def open_run(self, run: RunDir) -> None:
        """Open the monitor of ``run``."""

    @abstractmethod
    def open_new_run(self) -> None:
        """Open the form for a new run."""

    @abstractmethod
    def open_proposal(self) -> None:
        """Propose a profile for this machine."""

    @abstractmethod
    def open_compare(self, runs: list[RunDir], hint: str = "") -> None:
        """Compare ``runs``; ``hint`` is a note for the heading. Raises ``UserError`` if there are too many."""

    @abstractmethod
    def open_checkpoints(self, id: str) -> None:
        """Open the checkpoints of the run ``id``."""

    @abstractmethod
    def open_data(self, source: str | None) -> None:
        """Open the data of a run or a profile; None: of the profile detected for this machine."""


class AppScreen(HasActions, Screen[ScreenResultType]):
    """A screen of the app, with its actions: ``class HomeScreen(AppScreen[None], actions=HOME)``."""

    app = getters.app(BaseApp)
    # Textual repaints the whole screen when the focus moves. The widgets that lose and get it repaint themselves.
    focused: Reactive[Widget | None] = Reactive(None, repaint=False)

    def action_back(self) -> None:
        self.dismiss()


class AppModal(ModalScreen[ScreenResultType], AppScreen[ScreenResultType]):
    """A dialog over another screen, whose keys and the app's do nothing until it closes."""

    VERTICAL_BREAKPOINTS = [(0, "-low"), (12, "-high")]  # noqa: RUF012, as Textual declares it

    def action_help(self) -> None:
        self.app.open_help(self.actions)
