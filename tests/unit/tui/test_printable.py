"""Text from runs, files and models, made safe to print, and fitted into a number of cells."""

from __future__ import annotations

import json
import unicodedata

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from tui.text.ellipsis import clip, wrap, wrap_clipped
from tui.text.printable import console_text, printable

BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def unsafe(text: str) -> set[str]:
    return {c for c in text if unicodedata.category(c) in ("Cc", "Zl", "Zp") or c in BIDI}


@given(st.text(st.characters(codec="utf-8")) | st.text(f"ab\n\t\r\x1b[31m]0;\x07\x9b\x7f\x85\u2028{BIDI}"))
def test_no_text_controls_the_terminal(text: str) -> None:
    assert unsafe(printable(text)) <= {"\n", "\t"}
    assert unsafe(console_text(text)) <= {"\n", "\t"}


@given(st.recursive(st.none() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_means_the_same_when_it_is_made_printable(value: object) -> None:
    assert json.loads(printable(json.dumps(value))) == value


def test_a_control_character_is_named() -> None:
    assert printable("a\x1b[2Jb\x7f\x9b\u202ec\n\td") == "a\\u001b[2Jb\\u007f\\u009b\\u202ec\n\td"
    assert printable("schön 日本 👩‍💻 −×") == "schön 日本 👩‍💻 −×"


def test_the_output_of_a_program_becomes_lines_without_colours() -> None:
    text = "\x1b[1;31mError\x1b[0m: \x1b]8;;http://x\x1b\\link\x1b]8;;\x07\r\n10%\r20%\r\n\x1bPq\n"
    assert console_text(text) == "Error: link\n10%\n20%\nq\n"


@given(st.text("ab 日👩\n"), st.integers(2, 12), st.integers(1, 4))
def test_wrapped_lines_fit_and_lose_nothing(text: str, width: int, lines: int) -> None:
    wrapped = wrap(text, width)
    assert all(cell_len(line) <= width for line in wrapped)
    assert "".join("".join(wrapped).split()) == "".join(text.split())
    short = wrap_clipped(text, width, lines)
    assert len(short) == min(len(wrapped), lines) and all(cell_len(line) <= width for line in short)
    assert (len(wrapped) > lines) == (short != wrapped)


def test_words_are_kept_together_where_they_fit() -> None:
    assert wrap("the run has ended", 8) == ["the run", "has", "ended"]
    assert wrap("a longishword b", 5) == ["a", "longi", "shwor", "d b"]
    assert wrap("", 5) == [""]
    assert wrap_clipped("the run has ended", 8, 2) == ["the run", clip("has ended", 8)]
