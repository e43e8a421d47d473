"""Removes incomplete libraries from the cache of torch.compile.

A process that is killed while it links a library, or a loss of power soon after, leaves a part of it. torch loads it
all the same: every later run that needs it would fail, or die of a bus error.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
from pathlib import Path

_BEING_WRITTEN = 2.0  # seconds: a younger file may be what another run's linker is writing
_HEADER = 64  # bytes of a 64-bit ELF file; it says where the table of sections lies, which ends the file


def remove_incomplete(cache: Path) -> list[Path]:
    """Remove the incomplete libraries below ``cache`` and return them. torch compiles them again."""
    removed = []
    for path in cache.rglob("*.so"):
        with contextlib.suppress(OSError):  # another run has removed it
            if time.time() - path.stat().st_mtime > _BEING_WRITTEN and _is_incomplete(path):
                path.unlink()
                removed.append(path)
    return removed


def _is_incomplete(path: Path) -> bool:
    with open(path, "rb") as file:
        header, size = file.read(_HEADER), os.fstat(file.fileno()).st_size
    if len(header) < _HEADER or not any(header):  # some file systems keep the length, without the content
        return True
    if header[:5] != b"\x7fELF\x02":
        return False
    sections, each, count = struct.unpack_from("=Q10xHH", header, 0x28)
    end: int = sections + each * count
    return size < end
