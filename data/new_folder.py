"""Makes a folder or a file under a hidden name, so that a failure leaves nothing behind: neither a part of it nor the
folders made for it. What a killed process has left goes with the next attempt.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Let the block fill a folder beside ``target``, and give it that name at the end. Raise ``OSError``.

    ``target`` may be an empty folder, nothing else is replaced.
    """
    with building(target, folder=True) as path:
        yield path
        path.rename(target)  # onto a folder it fails unless that is empty, so this never deletes anything


@contextlib.contextmanager
def building(target: Path, *, folder: bool) -> Iterator[Path]:
    """Make an empty folder, or file, beside ``target`` for the block, which moves it there. Raise ``OSError``.

    What is left of it at the end is removed, and so are empty folders that were made above it.
    """
    path, missing = target.with_name(f".{target.name}-building-{secrets.token_hex(4)}"), missing_above(target)
    descriptor = None
    try:
        if folder:
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(exist_ok=False)
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # a file system without locks, where nothing abandoned is recognized
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        _remove_abandoned(target)
        yield path
    finally:
        _remove(path)
        if descriptor is not None:
            os.close(descriptor)
        remove_empty(missing)  # not empty after a success


def _remove_abandoned(target: Path) -> None:
    """Remove what processes that were killed were making for ``target``: whoever lives holds its lock.

    One that is empty may be so new that it is not locked yet.
    """
    name = re.compile(rf"\.{re.escape(target.name)}-building-[0-9a-f]{{8}}")
    with contextlib.suppress(OSError):
        for path in [path for path in target.parent.iterdir() if name.fullmatch(path.name) and not path.is_symlink()]:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.listdir(path) if path.is_dir() else path.stat().st_size:
                    _remove(path)
            os.close(descriptor)


def _remove(path: Path) -> None:
    if os.path.isdir(path):  # unlike Path.is_dir, also False for what no path can be
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def missing_above(path: Path) -> list[Path]:
    """Return the folders above ``path`` that are not there, the innermost first."""
    return [folder for folder in path.parents if not folder.exists()]


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove ``folders``, the innermost first, up to the first that holds something."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()
