"""Lists the checkpoints of a run, and samples from, resumes, exports, verifies or deletes one.

What needs torch runs as a child process, by the same command that a user would type: the app itself never loads torch.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from textual import on, work
from textual.app import ComposeResult
from textual.message import Message
from textual.widgets import Static

from engine.events.phases import CUT_OFF, is_active
from profiles.errors import UserError
from tui.app import cli_process
from tui.app.actions.registry import CHECKPOINTS
from tui.app.base import AppScreen
from tui.app.state.checkpoint_commands import arguments, input_error, resumed_spec, spec_of
from tui.app.widgets.bars import Heading, KeyBar
from tui.app.widgets.checkpoint_list import CheckpointList
from tui.app.widgets.prompt import Prompt
from tui.app.widgets.selectable_list import SelectableList
from tui.app.widgets.text_pane import TextPane
from tui.text import format as fmt
from tui.text.eval_text import main_metric

if TYPE_CHECKING:
    from engine.checkpoints.inventory import SavedCheckpoint
    from engine.events.run_dir import RunDir
    from engine.runs.store import RunStore

_EVERY = 2.0  # seconds between two polls of the folder
_FOR_ONE = frozenset(("sample", "resume_from", "export", "delete", "verify", "copy_path"))  # actions on a checkpoint
_TOKENS = 120  # tokens of a sample, the default of mla-tui sample
_EMPTY = "{} has no checkpoints yet\n\n{}, q goes back"


class CheckpointsScreen(AppScreen[None], actions=CHECKPOINTS):
    """Workers read, run child processes and delete; the handlers of their messages update the widgets."""

    CSS_PATH = "../styles/checkpoints.tcss"

    class Listed(Message):
        """The checkpoints, how many of other runs are in their folder, and the phase of the run.

        ``gone``: that those that were saved are not there any more, if so.
        """

        def __init__(self, checkpoints: list[SavedCheckpoint], others: int, phase: str, gone: str) -> None:
            super().__init__()
            self.checkpoints = checkpoints
            self.others = others
            self.phase = phase
            self.gone = gone

    class Unreadable(Message):
        """Why the checkpoints could not be listed."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class Verified(Message):
        """The result of reading every byte of a checkpoint: its ``damage``, empty if there is none."""

        def __init__(self, path: str, damage: str) -> None:
            super().__init__()
            self.path = path
            self.damage = damage

    class Output(Message):
        """A piece of the output of a child process."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class Status(Message):
        """One line about what happened; ``done``: the child process has ended."""

        def __init__(self, text: str, done: bool = False) -> None:
            super().__init__()
            self.text = text
            self.done = done

    class Launched(Message):
        def __init__(self, run: RunDir) -> None:
            super().__init__()
            self.run = run

    def __init__(self, store: RunStore, run: RunDir) -> None:
        super().__init__()
        self._store = store
        self._run = run
        self._prompted: SavedCheckpoint | None = None  # the checkpoint of the open prompt
        self._busy = False  # a child process runs

    def compose(self) -> ComposeResult:
        yield Heading(f"checkpoints · {self._run.shown_name}")
        yield CheckpointList()
        yield Prompt()
        yield Static("", id="command", markup=False)
        yield TextPane(id="output")
        yield Static("", id="message", markup=False)
        yield KeyBar()

    def on_mount(self) -> None:
        self._list.focus()
        self.call_after_refresh(self.watch_folder)

    @property
    def _list(self) -> CheckpointList:
        return self.query_one(CheckpointList)

    @work(group="folder", exit_on_error=True)
    async def watch_folder(self) -> None:
        """Read the inventory whenever the checkpoints in the folder have changed."""
        before: object = None
        while True:
            if self.is_active:
                try:
                    found = await asyncio.to_thread(self._poll)
                    if found != before:
                        before = found
                        self.post_message(await asyncio.to_thread(self._read_inventory))
                except (UserError, OSError) as error:
                    self.post_message(self.Unreadable(str(error)))
            await asyncio.sleep(_EVERY)

    def _poll(self) -> object:
        from engine.checkpoints.checkpoint import latest, path_of_step, steps
        from engine.checkpoints.evals import modified
        from engine.checkpoints.ownership import checkpoint_dir

        out = checkpoint_dir(self._run)
        saved = {step: modified(path_of_step(out, step)) for step in steps(out)}
        return saved, latest(out), self._run.summary().phase

    def _read_inventory(self) -> Listed:
        from engine.checkpoints.inventory import inventory
        from engine.checkpoints.ownership import checkpoints_of
        from engine.runs.find_checkpoint import no_checkpoint

        has = checkpoints_of(self._run)
        others = sum(step != has.source for step in has.others)
        found = inventory(self._run)
        gone = no_checkpoint(self._run) if not found and self._run.current_state().checkpoint else ""
        return self.Listed(found, others, self._run.summary().phase, gone)

    @on(Listed)
    def _show_list(self, message: Listed) -> None:
        ended = "the run was cut off" if message.phase == CUT_OFF else "the run has ended"
        hint = ended if not is_active(message.phase) else "c in the monitor saves one"
        never = _EMPTY.format(self._run.shown_name, hint)
        self._list.empty_text = "the checkpoints that were saved are not there" if message.gone else never
        self._list.show(message.checkpoints)
        self.query_one(KeyBar).hide(frozenset() if message.checkpoints else _FOR_ONE)
        count, total = len(message.checkpoints), sum(checkpoint.bytes for checkpoint in message.checkpoints)
        checkpoints = "1 checkpoint" if count == 1 else f"{count} checkpoints"
        notes = [f"{checkpoints}, {fmt.size(total)}"] if count else []
        notes += [f"{message.others} more of other runs"] if message.others else []
        self.query_one(Heading).show(note=" · ".join(notes))
        self._show_path()
        if message.gone:
            self._show_text(message.gone)

    @on(Unreadable)
    def _show_unreadable(self, message: Unreadable) -> None:
        self._list.empty_text = "the checkpoints cannot be listed"
        self._list.redraw()
        self._show_text(message.text)

    # Lines below the list

    def _show_text(self, text: str, where: str = "#message") -> None:
        line = self.query_one(where, Static)
        if line.content != text:
            line.update(text)
        line.display = bool(text)

    @on(Status)
    def _show_status(self, message: Status) -> None:
        if message.done:
            self._busy = False
        self._show_text(message.text)

    @on(Output)
    def _show_output(self, message: Output) -> None:
        self._show_text("generating …, Esc stops it")
        self.query_one(TextPane).write(message.text)

    @on(SelectableList.CursorMoved)
    def _show_path(self) -> None:
        """Show the path of the selected checkpoint, and its evaluations or what is wrong with it."""
        from engine.checkpoints.ownership import saved_by

        if self._busy or self.query_one(Prompt).display:
            return
        selected = self._list.selected
        self._show_text(selected.path if selected else "", "#command")
        damage = selected.damage if selected else ""
        found = " · ".join(main_metric(result) for result in selected.evals) if selected else ""
        if selected and selected.run is not None:
            found = " · ".join(filter(None, (f"of {saved_by(selected.run)}, the start of this one", found)))
        self._show_text(f"{damage}; use another checkpoint, or delete this one" if damage else found)

    def _available(self) -> SavedCheckpoint | None:
        """Return the selected checkpoint; None, with a line that says why, if nothing can be done with it now."""
        if self._busy:
            self._show_text("a command is running; Esc stops it")
        elif self._list.selected is None:
            self._show_text("there is no checkpoint to select")
        elif not self.query_one(Prompt).display:
            return self._list.selected
        return None

    # The prompt

    def action_sample(self) -> None:
        self._open_prompt("sample", "prompt", "empty: begin a new text", number=("tokens", _TOKENS))

    def action_export(self) -> None:
        self._open_prompt("export", "export to", "a new folder, or NAME.gguf for llama.cpp")

    def action_resume_from(self) -> None:
        if (checkpoint := self._available()) is None:
            return
        try:
            steps = spec_of(checkpoint).train.steps
        except UserError as error:
            self._show_text(str(error))
            return
        self._open_prompt("resume", "name", "the run's id", number=("steps", steps))

    def _open_prompt(self, topic: str, label: str, hint: str, number: tuple[str, int] | None = None) -> None:
        checkpoint = self._available()
        if checkpoint is None:
            return
        if checkpoint.damage:
            self._show_text(f"step {fmt.exact(checkpoint.step)}: {checkpoint.damage}; use another checkpoint")
            return
        self._prompted = checkpoint
        self.query_one(Prompt).open(topic, label, hint, number)
        self._show_text("")
        self._show_command()

    @on(Prompt.Changed)
    def _show_command(self) -> None:
        prompt = self.query_one(Prompt)
        if self._prompted is not None:
            command = arguments(self._prompted, prompt.topic, prompt.text, prompt.number)
            self._show_text(f"$ {shlex.join(['mla-tui', *command])}", "#command")

    @on(Prompt.Submitted)
    def _submitted(self, message: Prompt.Submitted) -> None:
        checkpoint = self._prompted
        if checkpoint is None:
            return
        if error := input_error(message.topic, message.text.strip(), message.number):
            self._show_text(error)
        elif message.topic == "resume":
            self._show_text("launching …")
            self.resume(checkpoint, message.text.strip() or None, message.number)
        else:
            self.query_one(Prompt).close()
            pane = self.query_one(TextPane)
            pane.display = message.topic == "sample"
            pane.clear()
            self._list.focus()
            self._busy = True
            doing = "loading the model" if message.topic == "sample" else "exporting"
            self._show_text(f"{doing} …, Esc stops it")
            self.run_command(message.topic, arguments(checkpoint, message.topic, message.text, message.number))

    # Workers

    @work(group="child", exit_on_error=True)
    async def run_command(self, topic: str, command: Sequence[str]) -> None:
        stdout: list[str] = []
        stderr: list[str] = []

        def on_output(piece: str) -> None:
            if topic == "sample":
                self.post_message(self.Output(piece))
            else:
                stdout.append(piece)

        code = await cli_process.run(command, on_output, stderr.append)
        line = cli_process.outcome(code, "".join(stderr))
        if topic == "export" and code == 0:
            line = f"written to {cli_process.last_line(''.join(stdout))}: {line}"
        self.post_message(self.Status(line, done=True))

    @work(group="launch", exit_on_error=True)
    async def resume(self, checkpoint: SavedCheckpoint, name: str | None, steps: int | None) -> None:
        from engine.preflight import resolve_spec
        from engine.runs.launch import launch
        from engine.train.resume_summary import resume_summary

        try:
            spec = resumed_spec(checkpoint, steps)
            self.notify(resume_summary(Path(checkpoint.path), resolve_spec(spec)), timeout=15)
            run = await asyncio.to_thread(launch, self._store, spec, name=name, resume=Path(checkpoint.path))
        except UserError as error:
            self.post_message(self.Status(str(error)))
        else:
            self.post_message(self.Launched(run))

    @on(Launched)
    def _launched(self, message: Launched) -> None:
        from tui.app.screens.monitor import MonitorScreen

        self.app.switch_screen(MonitorScreen(message.run))

    def action_verify(self) -> None:
        if (checkpoint := self._available()) is not None:
            self._show_text(f"reading {fmt.size(checkpoint.bytes)} …")
            self.verify(checkpoint)

    @work(thread=True, group="verify", exit_on_error=True)
    def verify(self, checkpoint: SavedCheckpoint) -> None:
        from engine.checkpoints.checkpoint import verify

        try:
            verify(Path(checkpoint.path))
        except (UserError, OSError) as error:
            self.post_message(self.Verified(checkpoint.path, str(error)))
        else:
            self.post_message(self.Verified(checkpoint.path, ""))

    @on(Verified)
    def _show_verified(self, message: Verified) -> None:
        self._list.verified[message.path] = message.damage
        self._list.redraw()
        self._show_text(message.damage or f"{Path(message.path).name} verified: checksums match")

    def action_copy_path(self) -> None:
        if (checkpoint := self._available()) is not None:
            self.app.copy_to_clipboard(checkpoint.path)
            self._show_text(f"copied: {checkpoint.path}")

    def action_delete(self) -> None:
        from engine.runs.delete_checkpoint import check_delete
        from tui.app.screens.confirm import ConfirmScreen

        if (checkpoint := self._available()) is None:
            return
        try:
            check_delete(self._store, Path(checkpoint.path).parent, checkpoint.step)
        except UserError as error:
            self._show_text(str(error))
            return

        def answered(answer: str | None) -> None:
            if answer == "delete":
                self.delete(checkpoint)

        size = fmt.size(checkpoint.bytes)
        question = f"Delete the checkpoint of step {fmt.exact(checkpoint.step)}, {size}?\n{checkpoint.path}"
        self.app.push_screen(ConfirmScreen(question, [("delete", "Delete")]), answered)

    @work(thread=True, group="delete", exit_on_error=True)
    def delete(self, checkpoint: SavedCheckpoint) -> None:
        from engine.runs.delete_checkpoint import delete

        try:
            delete(self._store, Path(checkpoint.path).parent, checkpoint.step)
            self.post_message(self._read_inventory())
        except (UserError, OSError) as error:
            self.post_message(self.Status(str(error)))
        else:
            self.post_message(self.Status(f"deleted the checkpoint of step {fmt.exact(checkpoint.step)}"))

    def action_back(self) -> None:
        """Stop the child process, else close the prompt, the text or the screen."""
        prompt, pane = self.query_one(Prompt), self.query_one(TextPane)
        if self._busy:
            self.workers.cancel_group(self, "child")
            self._show_status(self.Status("stopped", done=True))
        elif prompt.display:
            prompt.close()
            self._list.focus()
            self._show_path()
        elif pane.display:
            pane.display = False
            self._list.focus()
            self._show_path()
        else:
            self.dismiss()
