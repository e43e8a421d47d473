"""Reads what a program writes to its own terminal."""

from __future__ import annotations

import os


def read_to_end(master: int) -> str:
    """Return what is written to the terminal whose other end is ``master``, until no process has it open."""
    output = b""
    try:
        while part := os.read(master, 65536):
            output += part
    except OSError:
        pass  # Linux ends a terminal without a writer with an error
    return output.decode(errors="replace")
