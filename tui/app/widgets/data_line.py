"""Shows in one line what a run would read of its data, or why its data would be refused.

``mla-tui plan`` looks at the files, in a child process: the app itself does not load numpy.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

from textual import on, work
from textual.message import Message
from textual.widgets import Static

from tui.app import cli_process

_TYPING_PAUSE = 0.3  # seconds without a key until a child process is started


class DataLine(Static):
    class Answered(Message):
        def __init__(self, text: str, problem: str) -> None:
            super().__init__()
            self.text = text
            self.problem = problem

    def __init__(self) -> None:
        super().__init__("", id="data", markup=False)
        self._asked: list[str] = []

    def look(self, profile: str, overrides: Sequence[str]) -> None:
        """Show the line of ``profile`` with ``overrides``, once it is known. The line before stays until then."""
        command = ["plan", "--json", f"--profile={profile}", *(f"--set={text}" for text in overrides)]
        if command != self._asked:
            self._asked = command
            self.query_plan(command)

    @work(group="plan", exclusive=True, exit_on_error=True)
    async def query_plan(self, command: list[str]) -> None:
        await asyncio.sleep(_TYPING_PAUSE)
        stdout: list[str] = []
        await cli_process.run(command, stdout.append, lambda text: None)
        try:
            data = json.loads("".join(stdout))["data"]
        except ValueError:  # the form says what is wrong with its fields
            data = {"text": "", "problem": ""}
        self.post_message(self.Answered(data["text"], data["problem"]))

    @on(Answered)
    def _show(self, message: Answered) -> None:
        self.set_class(bool(message.problem), "problem")
        self.set_class(message.text.startswith("warning"), "warns")
        self.update(message.problem or message.text)
