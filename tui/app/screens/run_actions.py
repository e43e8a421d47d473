"""Stops, pauses, resumes, labels and removes runs from the list: the marked ones, or the selected one."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

from textual import on, work

from engine.events.labels import change_name, change_note, change_tags, read_labels
from engine.events.phases import CUT_OFF, PAUSED
from engine.events.requests import PauseRequest, ResumeRequest, StopRequest, TrainerRequest
from engine.events.status import Summary
from profiles.errors import UserError
from tui.app.base import AppScreen
from tui.app.screens.confirm import ConfirmScreen, stop_answers
from tui.app.widgets.prompt import Prompt
from tui.app.widgets.run_table import RunTable
from tui.text import format as fmt
from tui.text.run_text import is_stalled, is_working

if TYPE_CHECKING:
    from engine.events.run_dir import RunDir
    from engine.runs.remove_run import Removal
    from engine.runs.store import RunStore


class RunActions(AppScreen[None]):
    """The part of the list of runs that changes them. What a run refuses is one line; the others still change."""

    store: RunStore
    _prompted: list[str]  # ids of the runs that the open prompt is about

    @abstractmethod
    def targets(self) -> list[Summary]:
        """Return the runs to act on."""

    # Requests to the trainers

    def action_pause(self) -> None:
        runs = [run.id for run in self.targets() if is_working(run) and run.phase != PAUSED]
        if not runs:
            self.notify("only an active run can be paused")
        self.request(runs, PauseRequest(), "is asked to pause")

    def action_resume(self) -> None:
        targets = self.targets()
        paused = [run.id for run in targets if run.phase == PAUSED]
        cut = [run.id for run in targets if run.phase == CUT_OFF]
        if not paused and not cut:
            self.notify("only a run that is paused or was cut off can be resumed here")
        self.request(paused, ResumeRequest(), "resumes")
        self.restart(cut)

    def action_stop(self) -> None:
        runs = [run for run in self.targets() if is_working(run)]
        if not runs:
            self.notify("only an active run can be stopped")
            return

        def answered(answer: str | None) -> None:
            if answer in ("save", "nosave", "kill"):
                what = StopRequest(save=answer == "save", kill=answer == "kill")
                outcome = "is killed" if what.kill else "is asked to stop"
                self.request([run.id for run in runs], what, outcome)

        answers = stop_answers(all(is_stalled(run) for run in runs))
        self.app.push_screen(ConfirmScreen(f"Stop {_names(runs)}?", answers), answered)

    @work(group="request", exit_on_error=True)
    async def request(self, ids: list[str], what: TrainerRequest, outcome: str) -> None:
        from engine.runs.client import RunClient

        for id in ids:
            try:
                await RunClient(self.store.find(id)).request(what, by="app")
                self.notify(f"{id} {outcome}")
            except UserError as error:
                self.notify(str(error), severity="error")

    @work(group="resume", exit_on_error=True)
    async def restart(self, ids: list[str]) -> None:
        """Restart runs that were cut off from their last checkpoints."""
        from engine.runs.supervision import resume_run

        for id in ids:
            try:
                await asyncio.to_thread(resume_run, self.store.find(id))
                self.notify(f"{id} resumes")
            except UserError as error:
                self.notify(str(error), severity="error")

    # Tags, note, name

    def action_tag(self) -> None:
        self._prompt("tag", self.targets(), "tags to add, -tag removes one", lambda run: "")

    def action_note(self) -> None:
        self._prompt("note", self.targets(), "one line; empty removes the note", lambda run: run.note or "")

    def action_rename(self) -> None:
        selected = self.query_one(RunTable).selected
        self._prompt(
            "name", [selected] if selected else [], "empty: the name of the launch", lambda run: run.name or ""
        )

    def _prompt(self, topic: str, runs: list[Summary], hint: str, value: Callable[[Summary], str]) -> None:
        if runs:
            self._prompted = [run.id for run in runs]
            label = topic if len(runs) == 1 else f"{topic} of {len(runs)} runs"
            self.query_one(Prompt).open(topic, label, hint, value=value(runs[0]) if len(runs) == 1 else "")

    @on(Prompt.Submitted)
    def _label(self, message: Prompt.Submitted) -> None:
        """Apply the text; what is refused stays in the prompt."""
        try:
            for id in self._prompted:
                _apply(self.store.find(id), message.topic, message.text.strip())
        except UserError as error:
            self.notify(str(error), severity="error")
        else:
            self.close_prompt()

    def close_prompt(self) -> bool:
        """Close the prompt; return whether it was open."""
        prompt = self.query_one(Prompt)
        was_open = bool(prompt.display)
        prompt.close()
        self.query_one(RunTable).focus()
        return was_open

    # Removal

    def action_remove(self) -> None:
        if targets := self.targets():
            self.plan_removal([run.id for run in targets])

    @work(group="remove", exit_on_error=True)
    async def plan_removal(self, ids: list[str]) -> None:
        """Look at the sizes, then ask."""
        from engine.runs.remove_run import plan_removal

        removals: list[Removal] = []
        for id in ids:
            try:
                removals.append(await asyncio.to_thread(plan_removal, self.store, self.store.find(id)))
            except UserError as error:
                self.notify(str(error), severity="error")
        if removals:
            self._ask_removal(removals)

    def _ask_removal(self, removals: list[Removal]) -> None:
        count, size = sum(one.checkpoints for one in removals), sum(one.checkpoint_bytes for one in removals)
        kept = next((one.kept for one in removals if one.kept), "")
        checkpoints = f"{count} checkpoint{'s' if count != 1 else ''}, {fmt.size(size)}"
        what = _name_and_id(removals[0].run) if len(removals) == 1 else f"{len(removals)} runs"
        lines = [f"Remove {what}: log and history, {fmt.size(sum(one.bytes for one in removals))}?"]
        lines += [f"It has {checkpoints}." if len(removals) == 1 else f"They have {checkpoints}."] if count else []
        lines += [kept] if count and kept else []
        answers = [("run", "Remove, keep checkpoints" if count else "Remove")]
        answers += [("all", f"Remove with {checkpoints}")] if count and not kept else []

        def answered(answer: str | None) -> None:
            if answer in ("run", "all"):
                self.remove_runs([one.run for one in removals], answer == "all")

        self.app.push_screen(ConfirmScreen("\n".join(lines), answers), answered)

    @work(group="remove", exit_on_error=True)
    async def remove_runs(self, runs: list[RunDir], with_checkpoints: bool) -> None:
        from engine.runs.remove_run import remove_run

        for run in runs:
            try:
                await asyncio.to_thread(remove_run, self.store, run, with_checkpoints)
                self.notify(f"{run.id}: removed{' with its checkpoints' if with_checkpoints else ''}")
            except UserError as error:
                self.notify(str(error), severity="error")


def _apply(run: RunDir, topic: str, text: str) -> None:
    """Change a label of ``run`` as typed. Raise ``UserError``."""
    if topic == "note":
        change_note(run.path, text)
    elif topic == "name":
        change_name(run.path, text)
    else:
        words = text.split()
        has = read_labels(run.path).tags
        removed = [word[1:] for word in words if word.startswith("-") and word[1:] in has]
        change_tags(run.path, [word for word in words if not word.startswith("-")], removed)


def _name_and_id(run: RunDir) -> str:
    name = run.summary().name
    return f"{name} · {run.id}" if name and name != run.id else run.id


def _names(runs: list[Summary]) -> str:
    """Return the names of a few runs, else how many there are."""
    names = [run.name or run.id for run in runs]
    return ", ".join(names) if len(names) <= 3 else f"{len(names)} runs: {', '.join(names[:3])} …"
