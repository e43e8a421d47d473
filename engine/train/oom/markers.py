"""Leaves word of an out-of-memory error on a rank without a log, for rank 0 of the next attempt to read.

Only rank 0 writes the log. Another rank that runs out of memory writes a small file beside the checkpoints and ends;
all ranks restart, and rank 0 then handles the error as if it were its own.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from engine.host.files import read_json, write_json
from engine.train.oom.recognize import OutOfMemory


def write_marker(out: Path, failure: OutOfMemory, rank: int, micro: int) -> None:
    """Note that ``rank`` ran out of memory at ``micro`` sequences. Raises ``OSError``."""
    content = {"where": failure.where, "wanted": failure.wanted, "text": failure.text, "micro": micro}
    write_json(out / f".oom.{rank}", content)


def pop_marker(out: Path, micro: int) -> OutOfMemory | None:
    """Remove all markers below ``out`` and return one of them, or None.

    A marker of a larger micro-batch than ``micro``, the largest that the run still has or comes to, has been answered
    already: the run has been made smaller since.
    """
    found = None
    for path in out.glob(".oom.*"):
        content = read_json(path)
        with contextlib.suppress(OSError):  # a folder of that name: it is no marker
            path.unlink(missing_ok=True)
        wanted = content.get("wanted")
        if type(content.get("micro")) is int and content["micro"] <= micro and isinstance(wanted, int | None):
            text = f"rank {path.name[5:]}: {content.get('text')}"
            found = OutOfMemory(str(content.get("where")), wanted, text, content["micro"])
    return found
