"""Sends the user's requests to the run on the monitor: pause, resume, checkpoint, stop and live edits."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from textual import work
from textual.message import Message

from engine.events.phases import CUT_OFF, DATA_CHANGED, NEEDS_ATTENTION, PAUSED, phase_of
from engine.events.requests import CheckpointRequest, PauseRequest, ResumeRequest, StopRequest, TrainerRequest
from engine.events.types import Oom
from profiles.errors import UserError
from tui.app.screens.navigation import Navigation
from tui.app.state.outlook import seconds_left

if TYPE_CHECKING:
    from engine.events.run_dir import RunDir
    from engine.runs.client import RunClient


class RunRequests(Navigation):
    """The part of the monitor that changes the run. ``MonitorScreen`` shows the lines that it posts."""

    run: RunDir
    _oom: Oom | None = None  # the oom record that waits for the user's answer
    _oom_shown: Oom | None = None  # the one for which the tuning dialog was opened
    _oom_wait: float  # seconds that the run waits for the answer

    class Line(Message):
        """One line for the log view: what was requested, or in the tone ``bad`` why a request or a read failed."""

        def __init__(self, text: str, tone: str = "plain") -> None:
            super().__init__()
            self.text, self.tone = text, tone

    def _client(self) -> RunClient:
        from engine.runs.client import RunClient

        return RunClient(self.run)

    def _say(self, text: str, tone: str = "bad") -> None:
        self.post_message(self.Line(text, tone))

    @work(group="request", exit_on_error=True)
    async def request(self, what: TrainerRequest, line: str) -> None:
        """Send a request and say so in ``line``; the outcome comes back as a record."""
        try:
            await self._client().request(what, by="app")
        except UserError as error:
            self._say(str(error))
        else:
            self._say(line, "plain")

    def _can_request(self) -> bool:
        """Return whether the run takes requests; if not, say so."""
        if self.view.active:
            return True
        if self.view.phase == CUT_OFF:
            self._say("the run is not running: it was cut off; r resumes it")
        else:
            self._say(f"the run has already ended: {self.view.phase}")
        return False

    def _has_trainer(self) -> bool:
        """Return whether a trainer could do now what is requested; if not, say so."""
        if self.view.phase == NEEDS_ATTENTION:
            self._say("the run trains no further until it resumes: r tries again")
            return False
        return self._can_request()

    @property
    def _when(self) -> str:
        """Return when a trainer that works carries out a request; nothing where none does, for example in the queue."""
        return "; takes effect after this micro-batch" if phase_of(self.view.phase).trains else ""

    def action_pause(self) -> None:
        if not self._has_trainer():
            return
        if self.view.phase == PAUSED:
            self.request(ResumeRequest(), "resume requested from the app")
        else:
            self.request(PauseRequest(), f"pause requested from the app{self._when}")

    def action_resume(self) -> None:
        if self.view.phase == CUT_OFF:
            self.restart()
        elif self.data_has_changed:
            self._ask_about_data()
        elif self._can_request():
            if self.view.phase in (PAUSED, NEEDS_ATTENTION):
                self.request(ResumeRequest(), "resume requested from the app")
            else:
                self._say(f"the run is {self.view.phase}, neither paused nor cut off: there is nothing to resume")

    @property
    def data_has_changed(self) -> bool:
        """Whether the run waits until the user restores its data, or accepts it as it is."""
        return self.view.phase == NEEDS_ATTENTION and DATA_CHANGED in (self.view.reason or "")

    def _ask_about_data(self) -> None:
        from tui.app.screens.confirm import ConfirmScreen

        changed = (self.view.reason or "").partition("; restore ")[0]
        question = f"{self.view.name}: {changed}. Continue with the data as it is?"
        self.app.push_screen(ConfirmScreen(question, [("accept", "Continue")]), self._accept_data)

    def _accept_data(self, answer: str | None) -> None:
        if answer == "accept":
            accepted = ResumeRequest(data_changed=True)
            self.request(accepted, "resume with the data as it is requested from the app")

    @work(group="request", exit_on_error=True)
    async def restart(self) -> None:
        """Restart the run, which was cut off, from its last checkpoint."""
        from engine.runs.supervision import resume_run

        try:
            await asyncio.to_thread(resume_run, self.run)
        except UserError as error:
            self._say(str(error))
        else:
            self._say("resume requested from the app", "plain")

    def action_checkpoint(self) -> None:
        if self._has_trainer():
            self.request(CheckpointRequest(), "checkpoint requested from the app")

    def action_stop(self) -> None:
        from tui.app.screens.confirm import ConfirmScreen, stop_answers

        if self._can_request():
            question = f"Stop {self.view.name} at step {self.view.step}?"
            self.app.push_screen(ConfirmScreen(question, stop_answers(self.view.stalled is not None)), self._stop)

    def _stop(self, answer: str | None) -> None:
        match answer:
            case "save":
                self.request(StopRequest(), f"stop requested from the app{self._when}")
            case "nosave":
                self.request(StopRequest(save=False), f"stop without saving requested from the app{self._when}")
            case "kill":
                self.request(StopRequest(save=False, kill=True), "kill requested from the app")

    def action_tune(self) -> None:
        if self._has_trainer():
            self._open_tuning(self._oom)

    def _open_tuning(self, oom: Oom | None) -> None:
        from tui.app.screens.tuning import TuningScreen, describe_oom

        try:
            spec = self.run.live_spec()
        except UserError as error:
            self._say(str(error))
            return
        title = f"{describe_oom(oom)}; {self.continues_at(oom)}" if oom else ""
        self.app.push_screen(TuningScreen(spec, self._client(), oom, title), self._tuned)

    def continues_at(self, oom: Oom) -> str:
        """Return when the run continues without an answer: a time of day, which stays true below a dialog."""
        now = time.time()
        return time.strftime("automatic at %H:%M:%S", time.localtime(now + seconds_left(oom.t, self._oom_wait, now)))

    def _update_oom_dialog(self) -> None:
        """Open the tuning dialog once for a run that waits for an answer; close it when it was answered elsewhere."""
        from tui.app.screens.tuning import TuningScreen

        asks = any(isinstance(screen, TuningScreen) and screen.answers_oom for screen in self.app.screen_stack)
        if self._oom is None and asks:
            while self.app.screen is not self:  # what the dialog has opened goes with it
                self.app.screen.dismiss(None)
        elif self.app.read_only:
            return
        elif self.is_active and self._oom is not self._oom_shown and self.view.phase == PAUSED:
            self._oom_shown = self._oom
            self.app.bell()
            self._open_tuning(self._oom)

    def _tuned(self, changes: dict[str, Any] | None) -> None:
        if changes:
            text = ", ".join(f"{key} = {value}" for key, value in changes.items())
            self._say(f"{text} requested from the app", "plain")
