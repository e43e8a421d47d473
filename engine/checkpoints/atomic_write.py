"""Writes files and creates directories with fsync, and computes checksums while writing.

Every change to the disk is one call of ``os``, so that tests can kill the process or fail the call at each of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from profiles.errors import UserError

FileInfo = dict[str, Any]  # an entry of the manifest: bytes and sha256


def write_file(path: Path, pieces: Iterable[bytes | memoryview]) -> FileInfo:
    """Write ``pieces`` in order to the new file ``path`` and fsync it; return its size and sha256. Raises ``OSError``.

    The checksum is computed from the pieces; nothing is read back.
    """
    import hashlib  # OpenSSL takes 4 MB, and the supervisor, which imports this module, writes no checkpoint

    size, checksum = 0, hashlib.sha256()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        for piece in pieces:
            checksum.update(piece)
            rest = memoryview(piece)
            while rest:  # os.write may write less than it was given
                rest = rest[os.write(fd, rest) :]
            size += len(piece)
        os.fsync(fd)
    finally:
        os.close(fd)
    return {"bytes": size, "sha256": checksum.hexdigest()}


def fsync_dir(path: Path) -> None:
    """Wait until the entries of the directory ``path`` are on disk. Raises ``OSError``."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_dirs(path: Path) -> None:
    """Create ``path`` and its missing parents, and fsync each. Raises ``OSError``."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        fsync_dir(folder.parent)


def check_new_file(path: Path) -> None:
    """Raise ``UserError`` if ``path`` exists, whatever it is."""
    if path.exists():
        raise UserError(f"{path}: exists; name a new file")


def check_new_dir(path: Path) -> None:
    """Raise ``UserError`` unless ``path`` does not exist or is an empty directory."""
    if path.is_dir() and any(path.iterdir()):
        raise UserError(f"{path}: is not empty; choose a new directory")
    if path.exists() and not path.is_dir():
        raise UserError(f"{path}: is a file; choose a new directory")
