"""What a run reads: its shards, and the sequences of a step as text.

The answers come from ``mla-tui data show`` in a child process: numpy and the tokenizer are not for this one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from textual import on, work
from textual.app import ComposeResult
from textual.message import Message
from textual.widgets import Static

from tui.app import cli_process
from tui.app.actions.registry import DATA
from tui.app.base import AppScreen
from tui.app.widgets.bars import Heading, KeyBar
from tui.app.widgets.prompt import Prompt
from tui.app.widgets.selectable_list import SelectableList
from tui.app.widgets.shard_list import ShardList
from tui.app.widgets.token_view import TokenView
from tui.text import format as fmt

_NO_TEXT = "no tokenizer.json beside the data: copy the one that packed it there to see text"


class DataScreen(AppScreen[None], actions=DATA):
    """One question at a time: a newer one ends the child process of an older one."""

    CSS_PATH = "../styles/data.tcss"

    class Found(Message):
        """What the command answered; ``error`` where it gave none."""

        def __init__(self, found: dict[str, Any] | None, error: str = "") -> None:
            super().__init__()
            self.found = found
            self.error = error

    def __init__(self, what: str) -> None:
        super().__init__()
        self._what = what
        self._found: dict[str, Any] = {}
        self._step: int | None = None  # of the window that is shown or asked for; None: counted in the epoch
        self._sequence = 1  # -1: the last one
        self._window: dict[str, Any] | None = None  # what is shown

    def compose(self) -> ComposeResult:
        yield Heading(f"data · {self._what}")
        yield ShardList()
        yield Static("", id="where", markup=False)
        yield TokenView()
        yield Prompt()
        yield Static("", id="message", markup=False)
        yield KeyBar()

    def on_mount(self) -> None:
        self.query_one(TokenView).show([], None, "looking at the data …")
        self.query_one(TokenView).focus()
        self._look()

    def _look(self) -> None:
        which = [] if self._step is None else [f"--step={self._step}"]
        self.look(["data", "show", "--json", *which, f"--sequence={self._sequence}", "--", self._what])

    @work(group="look", exclusive=True, exit_on_error=True)
    async def look(self, command: list[str]) -> None:
        answer: list[str] = []
        said: list[str] = []
        await cli_process.run(command, answer.append, said.append)
        try:
            self.post_message(self.Found(json.loads("".join(answer))))
        except ValueError:
            self.post_message(
                self.Found(None, cli_process.last_line("".join(said)) or "the data could not be looked at")
            )

    @on(Found)
    def _take(self, message: Found) -> None:
        if message.found is None:
            self._go_back_to_shown()
            self._say(message.error)
            if not self._found:
                self.query_one(TokenView).show([], None, "nothing to show; o chooses another run or profile")
            return
        found = self._found = message.found
        name = found["run"] or self._what
        context, vocabulary = fmt.exact(found["context"]), fmt.exact(found["vocab_size"])
        note = f"{found['phase']} · context {context} · vocabulary {vocabulary}"
        self.query_one(Heading).show(f"data · {name}", note)
        self.query_one(ShardList).show(found["splits"])
        window = found["window"] or {"problem": "no sequence was found"}
        if window["problem"]:
            self._go_back_to_shown()
            # Without data the other problems say the same of every split.
            self._say(_lines([window["problem"], *(found["problems"] if found["splits"] else [])]))
            if not found["splits"]:
                self._say("", "#where")
                self.query_one(TokenView).show([], None, "no data to show; o chooses another run or profile")
            return
        self._window = window
        self._go_back_to_shown()
        self._say(_where(window, found), "#where")
        self.query_one(TokenView).show(window["ids"], window["texts"])
        self._say(_lines(found["problems"] or ([] if window["texts"] else [_NO_TEXT])))

    def _go_back_to_shown(self) -> None:
        """From what was asked for, which cannot be, to what is on screen."""
        if self._window is not None:
            self._step, self._sequence = self._window["step"], self._window["sequence"]

    def _say(self, text: str, where: str = "#message") -> None:
        line = self.query_one(where, Static)
        if line.content != text:
            line.update(text)
        line.display = bool(text)

    @on(SelectableList.CursorMoved)
    def _other_file(self) -> None:
        """A damaged file says what is wrong with it."""
        file = self.query_one(ShardList).selected
        self._say(file["problem"] or file["path"] if file else "")

    def action_go_to_step(self) -> None:
        steps = f"1 to {fmt.exact(self._found['steps'])}" if self._found else "a number"
        self.query_one(Prompt).open("step", "step", steps)

    def action_go_to_sequence(self) -> None:
        held = f"1 to {fmt.exact(self._window['of'])}" if self._window else "a number"
        self.query_one(Prompt).open("sequence", "sequence of the step" if self._step else "sequence", held)

    def action_open_data(self) -> None:
        self.query_one(Prompt).open("other", "data of", "a run's id or name, or a profile")

    @on(Prompt.Submitted)
    def _answered(self, message: Prompt.Submitted) -> None:
        text = message.text.strip().replace(",", "")
        if message.topic == "other":
            if text:
                self._what, self._step, self._sequence, self._found = text, None, 1, {}
                self._window = None
        elif text == "" and message.topic == "step":
            self._step, self._sequence = None, 1
        elif not text.isdecimal():
            self._say(f"{message.topic}: write a number from 1 up")
            return
        elif message.topic == "step":
            self._step, self._sequence = int(text), 1
        else:
            self._sequence = int(text)
        self._close()
        self._look()

    def action_sequence(self, by: int) -> None:
        """On by one sequence; within a run's steps, over the end of a step into the next."""
        if self.query_one(Prompt).display or self._window is None:
            return
        sequence = self._sequence + by
        if self._step is not None and not 1 <= sequence <= self._window["of"]:
            self._step += by
            sequence = 1 if by > 0 else -1
        self._sequence = sequence
        self._look()

    def action_token_ids(self) -> None:
        self.query_one(TokenView).toggle_ids()

    def action_back(self) -> None:
        if self.query_one(Prompt).display:
            self._close()
        else:
            self.dismiss()

    def _close(self) -> None:
        self.query_one(Prompt).close()
        self.query_one(TokenView).focus()


def _where(window: dict[str, Any], found: dict[str, Any]) -> str:
    """Which sequence this is and where it lies."""
    number = f"sequence {fmt.exact(window['sequence'])} of {fmt.exact(window['of'])}"
    if window["step"]:
        number = f"step {fmt.exact(window['step'])} of {fmt.exact(found['steps'])} · {number}"
    end = fmt.exact(window["offset"] + len(window["ids"]) - 1)
    place = f"{Path(window['shard']).name}, tokens {fmt.exact(window['offset'])}–{end}"
    return f"{number} · epoch {window['epoch']} · {place}"


def _lines(texts: list[str]) -> str:
    return "\n".join(dict.fromkeys(texts))
