"""The Textual app: home below, other screens on top of it. A run never ends because the app does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, ClassVar

from rich.console import RenderableType
from textual._compositor import ChopsUpdate
from textual.app import App
from textual.binding import BindingType
from textual.command import Provider
from textual.screen import Screen

from tui import actions
from tui.exact_update import ExactUpdate
from tui.terminal import LOST_TERMINAL, watch_terminal

if TYPE_CHECKING:
    from engine.jobs.store import Job, Store


def _action_provider() -> type[Provider]:
    from tui.palette import ActionProvider

    return ActionProvider


class MlaApp(App[int]):
    """Shows the jobs of ``store``; goes straight to the monitor of ``job_id`` when given.

    Raises ``UserError`` where there is no such job.
    """

    TITLE = "mla-tui"
    # Textual does not load the styles of an app's default screen by itself, so home's stand here.
    CSS_PATH: ClassVar[list[str | PurePath]] = ["styles/app.tcss", "styles/home.tcss"]
    BINDINGS: ClassVar[list[BindingType]] = [*actions.bindings(actions.APP)]
    COMMANDS: ClassVar[set[type[Provider] | Callable[[], type[Provider]]]] = {_action_provider}

    def __init__(self, store: Store, job_id: str | None = None) -> None:
        super().__init__()
        self.store = store
        self.animation_level = "none"  # an animation is bytes over ssh that say nothing
        self._first_job = store.find(job_id) if job_id is not None else None

    def get_default_screen(self) -> Screen[Any]:
        from tui.screens.home import HomeScreen

        return HomeScreen(self.store)

    def _display(self, screen: Screen[Any], renderable: RenderableType | None) -> None:
        if isinstance(renderable, ChopsUpdate):
            renderable = ExactUpdate.of(renderable)
        super()._display(screen, renderable)

    def on_mount(self) -> None:
        if self._first_job is not None:
            self.open_job(self._first_job)

    def open_job(self, job: Job) -> None:
        """Put the monitor of ``job`` on top."""
        from tui.screens.monitor import MonitorScreen

        self.push_screen(MonitorScreen(job))

    def open_new_run(self) -> None:
        """Put the form for a new run on top."""
        from tui.screens.new_run import NewRunScreen

        self.push_screen(NewRunScreen(self.store))

    def open_checkpoints(self, id: str | None) -> None:
        """Put the checkpoints of the job ``id`` on top; None: there is no job yet."""
        from profiles.errors import UserError
        from tui.screens.checkpoints import CheckpointsScreen

        try:
            if id is None:
                raise UserError("there is no run yet whose checkpoints could be shown; n starts one")
            self.push_screen(CheckpointsScreen(self.store, self.store.find(id)))
        except UserError as error:
            self.notify(str(error), severity="error")

    def open_data(self, what: str | None) -> None:
        """Put the data of a job or a profile on top; None: of the profile this machine starts with."""
        from profiles.registry import detect
        from tui.screens.data import DataScreen

        self.push_screen(DataScreen(what or detect()))

    def action_help(self) -> None:
        from tui.screens.help import HelpScreen

        place = getattr(self.screen, "place", None)
        if place is not None:
            self.push_screen(HelpScreen(place))


def run_app(store: Store, job_id: str | None = None) -> int:
    """Run the app in this terminal until the person leaves it or the terminal is gone; returns the exit code.

    Raises ``UserError`` where ``job_id`` names no job or there is no terminal to draw on.
    """
    import sys

    from profiles.errors import UserError

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UserError("the app needs a terminal; without one use: mla-tui ls, mla-tui status JOB, mla-tui watch JOB")
    app = MlaApp(store, job_id)
    with watch_terminal(app, sys.stdin.fileno()) as terminal:
        app.run()
    return LOST_TERMINAL if terminal.lost else app.return_code or 0
