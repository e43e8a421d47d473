"""Lets a process hold a checkpoint while it reads it: the run that wrote it deletes none that is held."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def held(path: Path) -> Iterator[bool]:
    """Hold the checkpoint ``path`` for the block, which gets False where it has been deleted."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield path.exists()  # what may not be read, is there
        return
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(fd, fcntl.LOCK_SH)
        yield _is_linked(path, fd)  # it may have been deleted before it was locked
    finally:
        os.close(fd)


@contextlib.contextmanager
def released(path: Path) -> Iterator[bool]:
    """Keep others from holding ``path`` for the block, which gets False where one does. Raises ``OSError``."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        free = True
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            free = False
        except OSError:  # a file system without locks
            pass
        yield free
    finally:
        os.close(fd)


def _is_linked(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except OSError:
        return False
