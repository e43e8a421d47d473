"""Makes text of unknown origin safe to print: one line, no control characters, of limited length."""

from __future__ import annotations

import unicodedata

LONGEST_LINE = 1000  # characters of a message; a path can have hundreds
LONGEST_VALUE = 80  # of a value that a message quotes
LONGEST_KEY = 60  # of a key that a message names, or that is compared with ours


def one_line(text: str, limit: int = LONGEST_LINE) -> str:
    """Return ``text`` as one line of at most ``limit`` characters.

    White space becomes one space. What a terminal would obey instead of showing (control characters, marks of writing
    direction, halves of surrogate pairs) is escaped as in a Python string. Of a longer text the middle is left out: its
    beginning names the file, its end says what to do.
    """
    if len(text) > limit:
        text = f"{text[: limit * 2 // 3 - 1]}…{text[-limit // 3 :]}"
    if not text.isprintable():
        text = "".join(_shown(char) for char in " ".join(text.split()))
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def brief(value: object) -> str:
    """Return the ``repr`` of a value that was read, short enough to quote in a message."""
    return one_line(repr(value), LONGEST_VALUE)


def brief_key(key: str) -> str:
    """Return a key that was read, short enough to name in a message."""
    return one_line(key, LONGEST_KEY)


def counted(number: int, noun: str) -> str:
    """Return ``1 file`` or ``1,234 files``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _shown(char: str) -> str:
    if char.isprintable() or unicodedata.category(char) == "Zs":
        return char
    return char.encode("unicode_escape").decode()
