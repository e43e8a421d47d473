"""The checkpoints of one run, and what can be done with one: text, a new run, an export, an end.

What needs torch is a child process, a command a person could have typed: this process must stay small.
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

from profiles.errors import SpecError, UserError
from tui.app import cli_process
from tui.app.actions.registry import CHECKPOINTS
from tui.app.base import AppScreen
from tui.app.widgets.bars import Heading, KeyBar
from tui.app.widgets.checkpoint_list import CheckpointList
from tui.app.widgets.prompt import Prompt
from tui.app.widgets.selectable_list import SelectableList
from tui.app.widgets.text_pane import TextPane
from tui.text import format as fmt

if TYPE_CHECKING:
    from engine.checkpoints.inventory import SavedCheckpoint
    from engine.events.run_dir import RunDir
    from engine.runs.store import RunStore
    from profiles.spec import RunSpec

_EVERY = 2.0  # seconds between two looks at the folder
_TOKENS = 120  # of a text, as mla-tui sample has it
_NOTHING = "{} has no checkpoint yet\n\n{}, q goes back"


class CheckpointsScreen(AppScreen[None], actions=CHECKPOINTS):
    """Workers read, run and delete; their messages are what the widgets follow."""

    CSS_PATH = "../styles/checkpoints.tcss"

    class Listed(Message):
        def __init__(self, kept: list[SavedCheckpoint], ended: bool) -> None:
            super().__init__()
            self.kept = kept
            self.ended = ended

    class Verified(Message):
        """What reading all of a checkpoint found; nothing where it is whole."""

        def __init__(self, path: str, damage: str) -> None:
            super().__init__()
            self.path = path
            self.damage = damage

    class Wrote(Message):
        """A piece of what a child process writes."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class Said(Message):
        """One line for the person; ``done`` where a child process has ended."""

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
        self._about: SavedCheckpoint | None = None  # whom the open question is about
        self._busy = False  # a child process runs

    def compose(self) -> ComposeResult:
        yield Heading(f"checkpoints · {self._run.name}")
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
        """Read the inventory anew whenever the folder's checkpoints have changed."""
        seen: object = None
        while True:
            if self.is_active:
                try:
                    now = await asyncio.to_thread(self._look)
                    if now != seen:
                        seen = now
                        self.post_message(await asyncio.to_thread(self._take_stock))
                except (UserError, OSError) as error:
                    self.post_message(self.Said(str(error)))
            await asyncio.sleep(_EVERY)

    def _look(self) -> object:
        from engine.checkpoints.checkpoint import latest, steps
        from engine.checkpoints.inventory import checkpoint_dir

        out = checkpoint_dir(self._run)
        return steps(out), latest(out), self._run.ended()

    def _take_stock(self) -> Listed:
        from engine.checkpoints.inventory import inventory

        return self.Listed(inventory(self._run), self._run.ended())

    @on(Listed)
    def _listed(self, message: Listed) -> None:
        self._list.empty_text = _NOTHING.format(
            self._run.name, "it has ended" if message.ended else "c on the monitor writes one"
        )
        self._list.show(message.kept)
        total = sum(one.bytes for one in message.kept)
        self.query_one(Heading).show(note=f"{len(message.kept)}, {fmt.size(total)}" if message.kept else "")
        self._show_path()

    # What is said

    def _say(self, text: str, where: str = "#message") -> None:
        line = self.query_one(where, Static)
        if line.content != text:
            line.update(text)
        line.display = bool(text)

    @on(Said)
    def _said(self, message: Said) -> None:
        if message.done:
            self._busy = False
        self._say(message.text)

    @on(Wrote)
    def _wrote(self, message: Wrote) -> None:
        self._say("writing …, Esc ends it")
        self.query_one(TextPane).write(message.text)

    @on(SelectableList.CursorMoved)
    def _show_path(self) -> None:
        """The line below the list: the chosen one's path, or what is wrong with it."""
        if self._busy or self.query_one(Prompt).display:
            return
        one = self._list.selected
        self._say(one.path if one else "", "#command")
        self._say(f"{one.damage}; take another, or delete it" if one and one.damage else "")

    def _chosen(self) -> SavedCheckpoint | None:
        """The checkpoint to do something with; None, and said why, where it cannot be now."""
        if self._busy:
            self._say("one thing at a time: Esc ends what is running")
        elif self._list.selected is None:
            self._say("there is no checkpoint to choose")
        elif not self.query_one(Prompt).display:
            return self._list.selected
        return None

    # Asking

    def action_sample(self) -> None:
        self._ask("text", "prompt", "empty begins a new text", number=("tokens", _TOKENS))

    def action_export(self) -> None:
        self._ask("export", "export to", "a new folder")

    def action_resume_from(self) -> None:
        if (one := self._chosen()) is None:
            return
        try:
            steps = _spec_of(one).train.steps
        except UserError as error:
            self._say(str(error))
            return
        self._ask("resume", "name", "the run's id", number=("steps", steps))

    def _ask(self, topic: str, label: str, hint: str, number: tuple[str, int] | None = None) -> None:
        one = self._chosen()
        if one is None:
            return
        if one.damage:
            self._say(f"step {fmt.exact(one.step)}: {one.damage}; take another checkpoint")
            return
        self._about = one
        self.query_one(Prompt).open(topic, label, hint, number)
        self._say("")
        self._show_command()

    @on(Prompt.Changed)
    def _show_command(self) -> None:
        ask = self.query_one(Prompt)
        if self._about is not None:
            command = _words_of(self._about, ask.topic, ask.text, ask.number)
            self._say(f"$ {shlex.join(['mla-tui', *command])}", "#command")

    @on(Prompt.Submitted)
    def _answered(self, message: Prompt.Submitted) -> None:
        one = self._about
        if one is None:
            return
        if wrong := _objection(message.topic, message.text.strip(), message.number):
            self._say(wrong)
        elif message.topic == "resume":
            self._say("launching …")
            self.resume(one, message.text.strip() or None, message.number)
        else:
            self.query_one(Prompt).close()
            pane = self.query_one(TextPane)
            pane.display = message.topic == "text"
            pane.clear()
            self._list.focus()
            self._busy = True
            self._say("loading the model …, Esc ends it" if message.topic == "text" else "exporting …, Esc ends it")
            self.run_child(message.topic, _words_of(one, message.topic, message.text, message.number))

    # Doing

    @work(group="child", exit_on_error=True)
    async def run_child(self, topic: str, command: Sequence[str]) -> None:
        told: list[str] = []
        shown: list[str] = []

        def out(piece: str) -> None:
            if topic == "text":
                self.post_message(self.Wrote(piece))
            else:
                shown.append(piece)

        code = await cli_process.run(command, out, told.append)
        line = cli_process.last_line("".join(told))
        if topic == "export" and code == 0:
            line = f"written to {cli_process.last_line(''.join(shown))}: {line}"
        self.post_message(self.Said(line or (f"ended with status {code}" if code else ""), done=True))

    @work(group="launch", exit_on_error=True)
    async def resume(self, one: SavedCheckpoint, name: str | None, steps: int | None) -> None:
        from engine.runs.launch import launch

        try:
            spec = _going_on(one, steps)
            run = await asyncio.to_thread(launch, self._store, spec, name=name, resume=Path(one.path))
        except UserError as error:
            self.post_message(self.Said(str(error)))
        else:
            self.post_message(self.Launched(run))

    @on(Launched)
    def _launched(self, message: Launched) -> None:
        from tui.app.screens.monitor import MonitorScreen

        self.app.switch_screen(MonitorScreen(message.run))

    def action_verify(self) -> None:
        if (one := self._chosen()) is not None:
            self._say(f"reading {fmt.size(one.bytes)} …")
            self.verify(one)

    @work(thread=True, group="verify", exit_on_error=True)
    def verify(self, one: SavedCheckpoint) -> None:
        from engine.checkpoints.checkpoint import verify

        try:
            verify(Path(one.path))
        except (UserError, OSError) as error:
            self.post_message(self.Verified(one.path, str(error)))
        else:
            self.post_message(self.Verified(one.path, ""))

    @on(Verified)
    def _verified(self, message: Verified) -> None:
        self._list.verified[message.path] = message.damage
        self._list.redraw()
        self._say(message.damage or f"{Path(message.path).name} is what was saved, to the last byte")

    def action_copy_path(self) -> None:
        if (one := self._chosen()) is not None:
            self.app.copy_to_clipboard(one.path)
            self._say(f"copied: {one.path}")

    def action_delete(self) -> None:
        from engine.runs.delete_checkpoint import check_delete
        from tui.app.screens.confirm import ConfirmScreen

        if (one := self._chosen()) is None:
            return
        try:
            check_delete(self._store, Path(one.path).parent, one.step)
        except UserError as error:
            self._say(str(error))
            return

        def answered(answer: str | None) -> None:
            if answer == "delete":
                self.delete(one)

        question = f"Delete the checkpoint of step {fmt.exact(one.step)}, {fmt.size(one.bytes)}?\n{one.path}"
        self.app.push_screen(ConfirmScreen(question, [("delete", "Delete")]), answered)

    @work(thread=True, group="delete", exit_on_error=True)
    def delete(self, one: SavedCheckpoint) -> None:
        from engine.runs.delete_checkpoint import delete

        try:
            delete(self._store, Path(one.path).parent, one.step)
            self.post_message(self._take_stock())
        except (UserError, OSError) as error:
            self.post_message(self.Said(str(error)))
        else:
            self.post_message(self.Said(f"the checkpoint of step {fmt.exact(one.step)} is gone"))

    def action_back(self) -> None:
        """What is nearest ends first: a child process, the question, the text, the screen."""
        ask, pane = self.query_one(Prompt), self.query_one(TextPane)
        if self._busy:
            self.workers.cancel_group(self, "child")
            self._said(self.Said("ended", done=True))
        elif ask.display:
            ask.close()
            self._list.focus()
            self._show_path()
        elif pane.display:
            pane.display = False
            self._list.focus()
            self._show_path()
        else:
            self.dismiss()


def _objection(topic: str, text: str, number: int | None) -> str:
    """What is wrong with an answer, as far as that is known without a child process; else nothing."""
    from engine.checkpoints.atomic_write import check_new_dir

    if topic == "text" and not number:
        return "tokens: write a number from 1 up"
    if topic == "export":
        if not text or text.startswith("-"):
            return "export to: name a new folder"
        try:
            check_new_dir(Path(text).expanduser())
        except (UserError, OSError) as error:
            return str(error)
    return ""


def _spec_of(one: SavedCheckpoint) -> RunSpec:
    from engine.checkpoints.checkpoint import metadata
    from profiles.spec import RunSpec

    return RunSpec.from_dict(metadata(Path(one.path))["spec"], f"{one.path}/trainer.json")


def _going_on(one: SavedCheckpoint, steps: int | None) -> RunSpec:
    """What ``mla-tui launch --resume`` would start. Raises ``UserError``."""
    from profiles.registry import with_overrides

    spec = _spec_of(one)
    steps = spec.train.steps if steps is None else steps
    if steps <= one.step:
        raise SpecError(f"steps: the checkpoint is at step {fmt.exact(one.step)}; write more than that")
    return spec if steps == spec.train.steps else with_overrides(spec, [f"train.steps={steps}"])


def _words_of(one: SavedCheckpoint, topic: str, text: str, number: int | None) -> list[str]:
    """The command that does it, without the program's name."""
    if topic == "text":
        return ["sample", one.path, f"--prompt={text}", "-n", str(number)]
    if topic == "export":
        return ["export", one.path, text.strip()]
    name = ["--name", text.strip()] if text.strip() else []
    steps = [] if number in (None, _spec_of(one).train.steps) else ["-s", f"steps={number}"]
    return ["launch", "--resume", one.path, *steps, *name]
