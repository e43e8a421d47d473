"""Small files that are replaced whole or not at all, and a line to the console that cannot fail."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from engine.host.private_dirs import private_opener


def write_json(path: Path, content: Any) -> None:
    """Replace ``path`` by rename, so that a reader sees the old or the new, never a part. Raises ``OSError``."""
    write_atomic(path, json.dumps(content).encode())


def write_atomic(path: Path, content: bytes, fsync: bool = True) -> None:
    """Replace ``path`` by rename; without ``fsync`` a power loss may leave anything. Raises ``OSError``."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(beside, "wb", opener=private_opener) as file:
            file.write(content)
            if fsync:
                file.flush()
                os.fsync(file.fileno())
        os.rename(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def read_json(path: Path) -> dict[str, Any]:
    """The object in ``path``, or ``{}`` where there is none or it is damaged."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def rotate(path: Path, limit: int) -> None:
    """Where ``path`` has grown beyond ``limit`` bytes, move what is in it to ``path.1`` and go on from nothing.

    Processes hold the file open to append to it, so it stays the same file: it is copied and cut. What is written
    between the end of the copy and the cut is lost, so the copy follows until nothing is left to follow.
    """
    aside = path.with_name(f"{path.name}.1")
    beside = path.with_name(f".{aside.name}")
    try:
        if path.stat().st_size <= limit:
            return
        with open(path, "r+b", buffering=0) as file, open(beside, "wb", buffering=0) as copy:
            while part := file.read(1 << 20):
                copy.write(part)
            os.rename(beside, aside)
            while part := file.read(1 << 20):
                copy.write(part)
            file.truncate(0)
    except OSError:  # no room for a copy: the file grows, and nothing is lost
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def write_stderr(text: str) -> None:
    """One line to stderr, past Python's buffer: the console may stand on the same full disk as what we speak of, and
    what is left in a buffer would fail again later."""
    with contextlib.suppress(OSError):
        os.write(2, f"{text}\n".encode())
