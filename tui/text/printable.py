"""Makes text of several lines safe to print: output of programs, generated text, and all that a command prints."""

from __future__ import annotations

import re

# C0 except newline and tab, DEL, C1, line and paragraph separators, and what turns the direction of text around.
_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
# Colours and cursor movements; titles and links, which end with BEL or ESC and a backslash; short sequences.
_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\n]*(?:\x07|\x1b\\)|[@-Z\\^_=>78])")


def printable(text: str) -> str:
    """Return ``text`` with each control character except newline and tab written as an escape, like ``\\u001b``.

    So a name cannot move the cursor or hide a part of the line. The escapes are those of JSON, which stays what it was.
    """
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def console_text(text: str) -> str:
    """Return the output of a program without colours, and with each state of a progress bar on its own line."""
    return printable(_SEQUENCE.sub("", text).replace("\r\n", "\n").replace("\r", "\n"))
