"""Files and folders that are on the disk when a call returns, and the checksum of what was written.

Every change goes through ``os``, one call each: a test can end the process, or refuse the call, at any of them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from profiles.errors import UserError

Facts = dict[str, Any]  # of a file, for a manifest: its bytes and sha256


def write_file(path: Path, pieces: Iterable[bytes | memoryview]) -> Facts:
    """Write ``pieces`` one after the other into the new file ``path`` and wait for the disk. Raises ``OSError``.

    Returns ``{"bytes", "sha256"}``, taken from the pieces as they pass: nothing is read again.
    """
    size, checksum = 0, hashlib.sha256()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        for piece in pieces:
            checksum.update(piece)
            rest = memoryview(piece)
            while rest:  # a write may take less than it was given
                rest = rest[os.write(fd, rest) :]
            size += len(piece)
        os.fsync(fd)
    finally:
        os.close(fd)
    return {"bytes": size, "sha256": checksum.hexdigest()}


def sync_folder(path: Path) -> None:
    """Wait until the names in the folder ``path`` are on the disk. Raises ``OSError``."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folder(path: Path) -> None:
    """Make ``path`` and the folders above it that are missing, each of them durable. Raises ``OSError``."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def check_new_folder(path: Path) -> None:
    """Whether ``path`` can become a folder of its own: it is not there, or empty. Raises ``UserError``."""
    if path.is_dir() and any(path.iterdir()):
        raise UserError(f"{path}: is not empty; choose a new directory")
    if path.exists() and not path.is_dir():
        raise UserError(f"{path}: is a file; choose a new directory")
