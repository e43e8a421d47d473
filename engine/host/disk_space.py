"""Tells how much space a disk has, and whether it has enough for the files of a run."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from engine.host.private_dirs import private_opener

_NEEDED = 64 << 10  # bytes for the files that a run writes at its start


def free_space(folder: Path) -> int | None:
    """Return the bytes that any user may still write to the disk of ``folder``; None where it does not say."""
    disk = _stat(folder)
    return disk.f_bavail * disk.f_frsize if disk else None


def is_full(folder: Path) -> bool:
    """Return whether the disk of ``folder`` has no space for the files of a run; costs one ``statvfs``."""
    disk = _stat(folder)
    if disk is None:
        return False
    free = disk.f_bavail if os.geteuid() else disk.f_bfree  # some file systems keep blocks for root
    return free * disk.f_frsize < _NEEDED


def check_space(folder: Path) -> None:
    """Write as much to ``folder`` as a run does at its start, and take it away. Raise ``OSError``.

    A quota, for example, is known only to who writes.
    """
    probe = folder / f".space.{os.getpid()}"
    try:
        with open(probe, "wb", opener=private_opener) as file:
            file.write(bytes(_NEEDED))
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def _stat(folder: Path) -> os.statvfs_result | None:
    try:
        disk = os.statvfs(folder)
    except OSError:
        return None
    return disk if disk.f_blocks else None  # FUSE reports a size of 0 where it knows none
