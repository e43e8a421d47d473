"""Keeps the garbage collector from searching in vain, or twice, what lives as long as the app.

While the app starts, next to nothing is garbage, and the searches for it took a tenth of a second of the first one. A
full search of the app takes 30 to 50 ms, and came every two or three seconds while charts were zoomed; a key waited for
it. So the first search comes late, and what a full search has left is frozen: the next one searches only what came
since. What a closed screen leaves is in cycles: it thaws, and the next full search finds it.
"""

from __future__ import annotations

import gc
import threading
from typing import Any

_START = 2.0  # seconds: the longest run is drawn by then


def collect_once_started(after: float = _START) -> threading.Timer:
    """Collect nothing for ``after`` seconds, until the returned timer has run.

    Then freeze what there is, and what each full collection leaves.
    """
    gc.disable()
    timer = threading.Timer(after, _begin)
    timer.daemon = True
    timer.start()
    return timer


def _begin() -> None:
    gc.freeze()
    gc.callbacks.append(_freeze)
    gc.enable()


def _freeze(phase: str, info: dict[str, Any]) -> None:
    if phase == "stop" and info["generation"] == 2:
        gc.freeze()


def thaw() -> None:
    """Let the next full collection search everything."""
    gc.unfreeze()
