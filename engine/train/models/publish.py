"""Writes what is exported to a temporary place and renames it, so that it is there completely or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from profiles.errors import UserError


def publish_dir(out: Path, write: Callable[[Path], None]) -> int:
    """Let ``write`` fill a directory, move it to ``out`` and return its bytes. Raise ``OSError``."""
    with _temporary(out) as temporary:
        temporary.mkdir()
        write(temporary)
        written = list(temporary.iterdir())
        for file in written:
            # safetensors creates files that only the owner can read
            shutil.copymode(temporary / "config.json", file)
            _fsync(file)
        size = sum(file.stat().st_size for file in written)
        os.rename(temporary, out)
        return size


def publish_file(out: Path, write: Callable[[Path], None]) -> int:
    """Let ``write`` create a file, move it to ``out`` and return its bytes. Raise ``OSError`` if there is one."""
    with _temporary(out) as temporary:
        write(temporary)
        _fsync(temporary)
        size = temporary.stat().st_size
        os.link(temporary, out)  # unlike a rename, it does not replace a file that another process has put there
        return size


def check_free_space(out: Path, needed: int) -> None:
    """Raise ``UserError`` unless ``needed`` bytes are free where ``out`` will be."""
    existing = next(folder for folder in out.parents if folder.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise UserError(
            f"{out}: needs {needed / 1e6:,.1f} MB, {existing} has {free / 1e6:,.1f} MB free; free some space"
        )


@contextmanager
def _temporary(out: Path) -> Iterator[Path]:
    """Yield a path beside ``out``. What is left there at the end is removed, and so are empty folders made for it."""
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    made = [folder for folder in out.parents if not folder.exists()]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
    finally:
        if os.path.isdir(temporary):  # unlike Path.is_dir, also False for what no path can be
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty after a success
            for folder in made:
                folder.rmdir()


def _fsync(file: Path) -> None:
    with open(file, "rb") as stream:
        os.fsync(stream.fileno())
