"""Keeps control characters away from the terminal: standard output and error pass through here.

Names, reasons, file names, logs and generated text come from elsewhere. An escape sequence in them could clear the
screen, rewrite earlier lines or set the clipboard, so each control character is written as an escape such as
``\\u001b``. Newlines and tabs stay; ``profiles.printable.one_line`` is for values that must not have them.
"""

from __future__ import annotations

import codecs
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from tui.text.printable import console_text, printable

# What may be the first part of an escape sequence, or of a line break.
_INCOMPLETE = re.compile(r"(?:\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b\n]*\x1b?)?|\r)\Z")


class _PrintableStream:
    """Everything of a text stream, but what is written is made printable."""

    def __init__(self, stream: TextIO) -> None:
        self.unfiltered = stream

    def write(self, text: str) -> int:
        self.unfiltered.write(printable(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unfiltered, name)


@contextmanager
def printable_output() -> Iterator[None]:
    """While the block runs, make everything printable that is written to ``sys.stdout`` and ``sys.stderr``."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast(TextIO, _PrintableStream(stream)) if stream else stream for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def unfiltered(stream: TextIO) -> TextIO:
    """Return the stream below, for our control sequences. Text from elsewhere is made printable before."""
    return cast(TextIO, getattr(stream, "unfiltered", stream))


def data_output() -> TextIO:
    """Return the stream for data, such as generated text: a file or pipe gets it as it is, a terminal printable."""
    return sys.stdout if sys.stdout.isatty() else unfiltered(sys.stdout)


class Coloured(str):
    """A line with our colours. Text from elsewhere in it was made printable before."""

    __slots__ = ()


def print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        print(line, file=unfiltered(sys.stdout) if isinstance(line, Coloured) else sys.stdout)


class ConsoleOutput:
    """Writes the output of another program: to a terminal as printable lines, to a file or pipe byte by byte."""

    def __init__(self) -> None:
        self._to_terminal = sys.stdout.isatty()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""  # may be continued by the next piece

    def write(self, data: bytes, final: bool = False) -> None:
        if not self._to_terminal:
            sys.stdout.buffer.write(data)
        else:
            text = self._rest + self._decoder.decode(data, final)
            found = None if final else _INCOMPLETE.search(text)
            cut = found.start() if found else len(text)
            self._rest = text[cut:]
            sys.stdout.write(console_text(text[:cut]))
        sys.stdout.flush()
