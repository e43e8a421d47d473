"""Keeps files in place while a process uses them: locks, and what other processes know it by."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence

INTERVAL = 1.0  # seconds between checks


@contextlib.contextmanager
def held(checks: Sequence[Callable[[], object]]) -> Iterator[None]:
    """Call every one of ``checks`` once a second, in a thread, until the block is left. Each may raise ``OSError``.

    In a thread, because a training step may take minutes.
    """
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(INTERVAL):
            for check in checks:
                with contextlib.suppress(OSError):  # a full disk, or the directory is gone: tried again
                    check()

    thread = threading.Thread(target=run, name="held files", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
