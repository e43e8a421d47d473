"""Keeps the garbage collector from searching twice what lives as long as the app.

A full search of the app takes 30 to 50 ms, and came every two or three seconds while charts were zoomed; a key waited
for it. So what a full search has left is frozen, and the next one searches only what came since. What a closed screen
leaves is in cycles: it thaws, and the next full search finds it.
"""

from __future__ import annotations

import gc
from typing import Any


def freeze_what_is_left() -> None:
    """From now on, freeze what each full collection leaves, beginning with what there is."""
    gc.freeze()
    gc.callbacks.append(_freeze)


def _freeze(phase: str, info: dict[str, Any]) -> None:
    if phase == "stop" and info["generation"] == 2:
        gc.freeze()


def thaw() -> None:
    """Let the next full collection search everything."""
    gc.unfreeze()
