"""Makes a folder so that a failure leaves nothing behind: neither a part of it nor the folders made for it."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Let the block fill a folder beside ``target``, and give it that name at the end. Raise ``OSError``.

    ``target`` may be an empty folder, nothing else is replaced.
    """
    building, missing = target.with_name(f".{target.name}-building-{secrets.token_hex(4)}"), missing_above(target)
    try:
        building.mkdir(parents=True)
        yield building
        building.rename(target)  # onto a folder it fails unless that is empty, so this never deletes anything
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        remove_empty(missing)
        raise


def missing_above(path: Path) -> list[Path]:
    """Return the folders above ``path`` that are not there, the innermost first."""
    return [folder for folder in path.parents if not folder.exists()]


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove ``folders``, the innermost first, up to the first that holds something."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()
