"""Finds the commands in README and docs: those of code blocks, and those in backticks within text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
LOG = ROOT / "docs" / "log.md"  # dated entries keep the names of their day
DOCUMENTS = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")} - {LOG})
RUN = "<!-- run -->"
"""On a line before a block: the suite runs its commands."""
_SHELLS = ("", "sh", "bash", "console")  # languages of a fence
_DRAWN = re.compile("──|[│►▼]")  # a block with these is a drawing


class Command(NamedTuple):
    """One command of a document, without the remark beside it."""

    path: Path
    line: int
    text: str

    @property
    def place(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"


class Block(NamedTuple):
    """One code block: the number and text of each line, and whether it is marked to be run."""

    path: Path
    lines: list[tuple[int, str]]
    runs: bool

    def commands(self) -> Iterator[Command]:
        """Yield the commands; two spaces or more, or a # after them, begin a remark."""
        if any(_DRAWN.search(text) for _, text in self.lines):
            return
        pending, first = "", 0
        for number, text in self.lines:
            pending, first = f"{pending} {text.strip()}" if pending else text.strip(), first or number
            if pending.endswith("\\"):
                pending = pending[:-1].rstrip()
                continue
            yield Command(self.path, first, re.split(r"\s{2,}| #", pending)[0])
            pending, first = "", 0


def blocks(path: Path) -> Iterator[Block]:
    """Yield the indented and the fenced blocks of a document, except those of a language that is no shell."""
    found: list[tuple[int, str]] = []
    language: str | None = None  # of the open fence
    runs, before = False, ""
    for number, text in enumerate([*path.read_text(encoding="utf-8").splitlines(), ""], 1):
        fence = re.match(r"```(\w*)", text)
        if language is None and found and text.strip() and not text.startswith("    "):
            yield Block(path, found, runs)
            found, runs = [], False
        if fence and language is None:
            language = fence[1]
        elif fence:
            if language in _SHELLS:
                yield Block(path, found, runs)
            found, runs, language = [], False, None
        elif language is not None or (text.startswith("    ") and (found or not before)):
            found.append((number, text))
        elif text.strip():
            runs = text == RUN
        before = text.strip()
    if found:
        yield Block(path, found, runs)


def commands(path: Path) -> Iterator[Command]:
    """Yield what the blocks of a document have in their lines; much of it is no command of ours."""
    for block in blocks(path):
        yield from block.commands()


def mentions(path: Path) -> Iterator[Command]:
    """Yield each ``mla-tui …`` in backticks within the text of a document."""
    text = path.read_text(encoding="utf-8")
    for found in re.finditer(r"`(mla-tui [^`]+)`", text):
        yield Command(path, text.count("\n", 0, found.start()) + 1, " ".join(found[1].split()))
