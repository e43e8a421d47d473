"""Shows the shards that a run reads, and the sequences of a step as text.

``mla-tui data show`` reads them in a child process: the app itself loads neither numpy nor the tokenizer.
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

_OF_A_SEQUENCE = frozenset(("go_to_step", "go_to_sequence", "next_sequence", "previous_sequence", "token_ids"))
_NO_TEXT = "no tokenizer.json beside the data: copy the one that packed it there to see its text"


class DataScreen(AppScreen[None], actions=DATA):
    """Runs one query at a time: a new one stops the child process of the one before."""

    CSS_PATH = "../styles/data.tcss"

    class Answered(Message):
        """The answer of the command; None and an ``error`` if it failed."""

        def __init__(self, answer: dict[str, Any] | None, error: str = "") -> None:
            super().__init__()
            self.answer = answer
            self.error = error

    def __init__(self, source: str) -> None:
        """``source`` is the id or name of a run, or a profile."""
        super().__init__()
        self._source = source
        self._answer: dict[str, Any] = {}
        self._step: int | None = None  # the step that is shown or queried; None: sequences are counted in the epoch
        self._sequence = 1  # -1: the last one
        self._shown: dict[str, Any] | None = None  # the sequence on screen

    def compose(self) -> ComposeResult:
        yield Heading(f"data · {self._source}")
        yield ShardList()
        yield Static("", id="where", markup=False)
        yield TokenView()
        yield Prompt()
        yield Static("", id="message", markup=False)
        yield KeyBar()

    def on_mount(self) -> None:
        self.query_one(TokenView).show([], None, "reading the data …")
        self.query_one(TokenView).focus()
        self.query_one(KeyBar).hide(_OF_A_SEQUENCE)
        self._query()

    def _query(self) -> None:
        step = [] if self._step is None else [f"--step={self._step}"]
        self.query_data(["data", "show", "--json", *step, f"--sequence={self._sequence}", "--", self._source])

    @work(group="query", exclusive=True, exit_on_error=True)
    async def query_data(self, command: list[str]) -> None:
        stdout: list[str] = []
        stderr: list[str] = []
        code = await cli_process.run(command, stdout.append, stderr.append)
        try:
            self.post_message(self.Answered(json.loads("".join(stdout))))
        except ValueError:
            error = cli_process.outcome(code, "".join(stderr)) or "the data could not be read"
            self.post_message(self.Answered(None, error))

    @on(Answered)
    def _show_answer(self, message: Answered) -> None:
        if message.answer is None:
            self._restore_position()
            self._show_text(message.error)
            if not self._answer:
                self.query_one(TokenView).show([], None, "nothing to show; o selects another run or profile")
            return
        answer = self._answer = message.answer
        name = answer["run"] or self._source
        context, vocabulary = fmt.exact(answer["context"]), fmt.exact(answer["vocab_size"])
        note = f"{answer['phase']} · context {context} · vocabulary {vocabulary}"
        self.query_one(Heading).show(f"data · {name}", note)
        self.query_one(ShardList).show(answer["splits"])
        window = answer["window"] or {"problem": "no sequence was found"}
        if window["problem"]:
            self._restore_position()
            # Without data every split has the same problem.
            self._show_text(_lines([window["problem"], *(answer["problems"] if answer["splits"] else [])]))
            if not answer["splits"]:
                self._show_text("", "#where")
                self.query_one(TokenView).show([], None, "no data to show; o selects another run or profile")
            return
        self._shown = window
        self.query_one(KeyBar).hide(frozenset())
        self._restore_position()
        self._show_text(_describe(window, answer), "#where")
        self.query_one(TokenView).show(window["ids"], window["texts"])
        notes = [answer["usage"]] if answer["usage"].startswith("warning") else []
        notes += [f"changed since the run read it: {answer['changed']}"] if answer["changed"] else []
        self._show_text(_lines(answer["problems"] or [*notes, *([] if window["texts"] else [_NO_TEXT])]))

    def _restore_position(self) -> None:
        """Go back to the sequence on screen, if a query failed."""
        if self._shown is not None:
            self._step, self._sequence = self._shown["step"], self._shown["sequence"]

    def _show_text(self, text: str, where: str = "#message") -> None:
        line = self.query_one(where, Static)
        if line.content != text:
            line.update(text)
        line.display = bool(text)

    @on(SelectableList.CursorMoved)
    def _show_file(self) -> None:
        """Show the path of the selected file, or what is wrong with it."""
        file = self.query_one(ShardList).selected
        self._show_text(file["problem"] or file["path"] if file else "")

    def action_go_to_step(self) -> None:
        steps = f"1 to {fmt.exact(self._answer['steps'])}" if self._answer else "a number"
        self.query_one(Prompt).open("step", "step", steps)

    def action_go_to_sequence(self) -> None:
        numbers = f"1 to {fmt.exact(self._shown['of'])}" if self._shown else "a number"
        self.query_one(Prompt).open("sequence", "sequence of the step" if self._step else "sequence", numbers)

    def action_open_data(self) -> None:
        self.query_one(Prompt).open("other", "data of", "a run's id or name, or a profile")

    def action_pack_text(self) -> None:
        from tui.app.screens.pack import PackScreen

        self.app.push_screen(PackScreen(Path(self._answer.get("root") or "data/shards")))

    @on(Prompt.Submitted)
    def _submitted(self, message: Prompt.Submitted) -> None:
        text = message.text.strip().replace(",", "")
        if message.topic == "other":
            if text:
                self._source, self._step, self._sequence, self._answer = text, None, 1, {}
                self._shown = None
                self.query_one(KeyBar).hide(_OF_A_SEQUENCE)
        elif text == "" and message.topic == "step":
            self._step, self._sequence = None, 1
        elif not text.isdecimal():
            self._show_text(f"{message.topic}: write a number from 1 up")
            return
        elif message.topic == "step":
            self._step, self._sequence = int(text), 1
        else:
            self._sequence = int(text)
        self._close_prompt()
        self._query()

    def action_sequence(self, by: int) -> None:
        """Show the sequence ``by`` further; past the end of a step the next step."""
        if self.query_one(Prompt).display or self._shown is None:
            return
        sequence = self._sequence + by
        if self._step is not None and not 1 <= sequence <= self._shown["of"]:
            self._step += by
            sequence = 1 if by > 0 else -1
        self._sequence = sequence
        self._query()

    def action_token_ids(self) -> None:
        self.query_one(TokenView).toggle_ids()

    def action_back(self) -> None:
        if self.query_one(Prompt).display:
            self._close_prompt()
        else:
            self.dismiss()

    def _close_prompt(self) -> None:
        self.query_one(Prompt).close()
        self.query_one(TokenView).focus()


def _describe(window: dict[str, Any], answer: dict[str, Any]) -> str:
    """Return which sequence this is and where it is stored."""
    number = f"sequence {fmt.exact(window['sequence'])} of {fmt.exact(window['of'])}"
    if window["step"]:
        number = f"step {fmt.exact(window['step'])} of {fmt.exact(answer['steps'])} · {number}"
    end = fmt.exact(window["offset"] + len(window["ids"]) - 1)
    source = f"{window['source']}: " if window["source"] else ""
    place = f"{source}{Path(window['shard']).name}, tokens {fmt.exact(window['offset'])}–{end}"
    return f"{number} · epoch {window['epoch']} · {place}"


def _lines(texts: list[str]) -> str:
    return "\n".join(dict.fromkeys(texts))
