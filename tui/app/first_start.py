"""Tells whether the app starts for the first time: no run, no settings and no profile of the user."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from profiles.registry import BUILTIN_ORDER, names
from tui.app.settings import settings_path

if TYPE_CHECKING:
    from engine.runs.store import RunStore


def is_first_start(store: RunStore) -> bool:
    return not (settings_path().exists() or store.ids() or len(names()) > len(BUILTIN_ORDER))


def remember_start() -> None:
    """Make the next start not the first any more, by a settings file without entries, where that is possible."""
    path = settings_path()
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch()
