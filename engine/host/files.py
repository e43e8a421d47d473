"""Writes small files atomically, rotates a console file, and writes a line to stderr without raising."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from engine.host.private_dirs import private_opener
from engine.host.process import start_ticks
from profiles import reader
from profiles.errors import UserError

_COLLAPSE_RANGE = 0x08  # fallocate(2)


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` to ``path`` atomically: a reader sees the old file or the new one. Raise ``OSError``."""
    write_atomic(path, json.dumps(content).encode())


def write_atomic(path: Path, content: bytes, fsync: bool = True) -> None:
    """Write a temporary file and rename it to ``path``. Raise ``OSError``.

    Without ``fsync`` the file may be empty or damaged after a power loss.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb", opener=private_opener) as file:
            file.write(content)
            if fsync:
                file.flush()
                os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_temporaries(folder: Path, name: str = "*") -> None:
    """Remove what processes that were killed in ``write_atomic`` have left in ``folder`` of files like ``name``."""
    with contextlib.suppress(OSError):
        for path in list(folder.glob(f".{name}.*")):
            pid = path.name.rpartition(".")[2]
            if pid.isdecimal() and start_ticks(int(pid)) is None:
                path.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in ``path``, or ``{}`` if the file is missing or damaged."""
    try:
        return reader.read_json(path)
    except (OSError, UserError):
        return {}


def fault(path: Path) -> str:
    """Return what is wrong with a file that could not be read, in one word."""
    return "damaged" if path.exists() else "missing"


def rotate(path: Path, limit: int) -> None:
    """Move the content of ``path`` to ``path.1`` if it is larger than ``limit`` bytes; its newest bytes may stay.

    Other processes append to the open file, so it is not renamed: its beginning is copied, and then taken away by the
    file system (ext4, XFS). Where that cannot do so, all is copied and the file truncated. Then bytes written between
    the end of the copy and the truncation are lost; to keep that moment short the copy continues until it reaches the
    end.
    """
    rotated = path.with_name(f"{path.name}.1")
    temporary = path.with_name(f".{rotated.name}")
    try:
        if path.stat().st_size <= limit:
            return
        with open(path, "r+b", buffering=0) as file, open(temporary, "wb", buffering=0) as copy:
            block = os.fstatvfs(file.fileno()).f_bsize
            beginning = (path.stat().st_size - 1) // block * block  # not up to the end, which cannot be taken away
            while part := file.read(min(1 << 20, beginning - file.tell())):
                copy.write(part)
            os.rename(temporary, rotated)
            if _collapse(file.fileno(), beginning):
                return
            while part := file.read(1 << 20):
                copy.write(part)
            file.truncate(0)
    except OSError:  # no space for a copy: the file keeps growing, nothing is lost
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _collapse(fd: int, size: int) -> bool:
    """Take the first ``size`` bytes out of a file, at once for all who have it open; False where that cannot be."""
    if not size or sys.platform != "linux":
        return False
    import ctypes  # here, because ls rotates nothing

    try:
        fallocate = ctypes.CDLL(None).fallocate64
    except (AttributeError, OSError):
        return False
    fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return bool(fallocate(fd, _COLLAPSE_RANGE, 0, size) == 0)


def write_stderr(text: str) -> None:
    """Write one line to stderr and ignore errors.

    It bypasses Python's buffer: stderr may be a file on the full disk that the line reports, and buffered text would
    raise again at exit.
    """
    with contextlib.suppress(OSError):
        os.write(2, f"{text}\n".encode())
