"""Writes what is exported to a temporary place and renames it, so that it is there completely or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from data.new_folder import building
from profiles.errors import UserError


def publish_dir(out: Path, write: Callable[[Path], None]) -> int:
    """Let ``write`` fill a directory, move it to ``out`` and return its bytes. Raise ``OSError``."""
    with building(out, folder=True) as temporary:
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
    with building(out, folder=False) as temporary:
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


def _fsync(file: Path) -> None:
    with open(file, "rb") as stream:
        os.fsync(stream.fileno())
