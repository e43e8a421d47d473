"""Packs text into data for a run: a form over ``mla-tui data pack``, and what that prints."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Input, Label, Static

from profiles.errors import UserError
from profiles.names import check_name
from profiles.paths import expand
from tui.app.actions.registry import PACK
from tui.app.base import AppScreen
from tui.app.state.packs import Pack, last_phase
from tui.app.widgets.bars import Heading, KeyBar
from tui.app.widgets.text_pane import TextPane

_EVERY = 0.5  # seconds between two looks at the output
# (field, label, what stands there while it is empty)
_FIELDS = (
    ("sources", "text", "files, folders or globs, such as ~/texts '*.jsonl.zst'"),
    ("phase", "name", "of the data set, the run's data.phase"),
    ("tokenizer", "tokenizer", "a tokenizer.json, a folder that has one, or a run; empty: train one"),
    ("ids", "vocabulary", "ids of a trained tokenizer: 32768, or fewer for little text"),
    ("val", "validation", "such as 0.5% of the documents; empty: about 1 MB of text"),
)
_HINT = "Text, Markdown, code, .jsonl, .csv and .parquet, also .gz and .zst. A pack goes on when the app is closed."


class PackScreen(AppScreen[None], actions=PACK):
    """The pack that was started last below ``root`` is shown again when the screen opens."""

    CSS_PATH = "../styles/pack.tcss"

    def __init__(self, root: Path) -> None:
        super().__init__()
        self._root = expand(str(root), "data.root")
        phase = last_phase(self._root)
        self._pack = Pack(self._root, phase) if phase else None

    def compose(self) -> ComposeResult:
        yield Heading(f"pack text · {self._root}")
        for name, label, hint in _FIELDS:
            with Horizontal(classes="field"):
                yield Label(label)
                yield Input(id=name, placeholder=hint, compact=True)
        yield Static("", id="command", markup=False)
        yield Static("", id="message", markup=False)
        yield TextPane(id="output")
        yield KeyBar()

    def on_mount(self) -> None:
        for field in self.query(Input):
            field.cursor_blink = False
        self.query_one("#sources", Input).focus()
        self._show_command()
        self._follow()
        self.set_interval(_EVERY, self._follow)

    def _text(self, name: str) -> str:
        return self.query_one(f"#{name}", Input).value.strip()

    def _arguments(self) -> list[str]:
        """Return the command's arguments. Raises ``UserError`` where a field has none that it could take."""
        try:
            sources = [os.path.expanduser(word) for word in shlex.split(self._text("sources"))]
        except ValueError as error:
            raise UserError(f"text: {error}; write it in quotes") from None
        if not sources:
            raise UserError("text: name a file or a folder")
        if "-" in sources:
            raise UserError("text: standard input is for the command line: name a file")
        if not (phase := self._text("phase")):
            raise UserError("name: write one; a run reads it with data.phase")
        options = [f"--out={self._root}", f"--phase={check_name('name', phase)}"]
        if (self._root / phase / "dataset.json").exists():
            options.append("--append")
        for name, option in (("tokenizer", "--tokenizer"), ("ids", "--train-tokenizer"), ("val", "--val")):
            if value := self._text(name):
                options.append(f"{option}={value}")
        return ["data", "pack", *options, "--", *sources]

    @on(Input.Changed)
    def _show_command(self) -> None:
        try:
            self._show(f"$ {shlex.join(['mla-tui', *self._arguments()])}", "#command")
        except UserError:
            self._show(_HINT, "#command")
        self._show("")

    @on(Input.Submitted)
    async def _submitted(self) -> None:
        await self.run_action("start")

    def action_start(self) -> None:
        try:
            arguments = self._arguments()
            if self._pack is not None and self._pack.is_alive():
                where = f" {self._pack.elsewhere()}".rstrip()
                raise UserError(f"a pack is running{where}: wait for it, or stop it first")
            pack = Pack(self._root, self._text("phase"))
            pack.start(arguments)
        except UserError as error:
            self._show(str(error))
        except OSError as error:
            self._show(f"{error.filename or self._root}: {error.strerror or error}: choose another folder or repair it")
        else:
            self._pack = pack
            self._show(_HINT, "#command")  # the command stands above its output now
            self._follow()

    def action_stop(self) -> None:
        if self._pack is None or not self._pack.is_alive():
            self._show("no pack is running")
            return
        try:
            self._pack.stop()
        except UserError as error:
            self._show(str(error))

    def _follow(self) -> None:
        """Show what the pack has printed by now."""
        if self._pack is None or not self.is_active:
            return
        alive = self._pack.is_alive()
        self.query_one(Heading).show(note=f"packing {self._pack.elsewhere()}".rstrip() if alive else "")
        self.query_one(KeyBar).hide(frozenset() if alive else frozenset({"stop"}))
        text = f"$ {self._pack.command}\n{self._pack.output() or ('starting …' if alive else '')}"
        pane = self.query_one(TextPane)
        if text != pane.text:
            pane.replace(text)

    def _show(self, text: str, where: str = "#message") -> None:
        line = self.query_one(where, Static)
        if line.content != text:
            line.update(text)
