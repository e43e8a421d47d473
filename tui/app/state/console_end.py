"""Reads the end of what a program has printed into a file."""

from __future__ import annotations

import os
from pathlib import Path

from profiles.reader import open_regular
from tui.text.printable import console_text

SHOWN = 64 << 10  # bytes


def has_printed(path: Path) -> bool:
    """Return whether a program has printed anything into the file."""
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def read_end(path: Path) -> tuple[str, int]:
    """Return the last ``SHOWN`` bytes of the file as text, from the beginning of a line, and the bytes before them.

    Of a file that does not exist that is nothing. Raise ``OSError``.
    """
    try:
        with open_regular(path) as file:
            skipped = max(os.fstat(file.fileno()).st_size - SHOWN, 0)
            file.seek(skipped)
            data = file.read(SHOWN)
    except FileNotFoundError:
        return "", 0
    if skipped:
        data = data.partition(b"\n")[2]
    return console_text(data.decode(errors="replace")).rstrip("\n"), skipped
