"""Keeps files in place while a process uses them: locks, and what other processes know it by."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from engine.host.threads import start_daemon

INTERVAL = 1.0  # seconds between checks

Check = Callable[[], object]
_THREAD = "held files"
_checks: list[Check] = []
_running = threading.Lock()  # held while checks run: none is called after its block was left


@contextlib.contextmanager
def held(*checks: Check) -> Iterator[None]:
    """Call every one of ``checks`` once a second until the block is left. Each may raise ``OSError``.

    A thread does it, one for the whole process, because a training step may take minutes. Under a limit on the address
    space (``ulimit -v``) there is none, and nothing is checked.
    """
    if not any(thread.name == _THREAD for thread in threading.enumerate()):
        start_daemon(_THREAD, _run)
    with _running:
        _checks.extend(checks)
    try:
        yield
    finally:
        with _running:
            for check in checks:
                _checks.remove(check)


def _run() -> None:
    pause = threading.Event()
    while not pause.wait(INTERVAL):
        with _running:
            for check in _checks:
                with contextlib.suppress(OSError):  # a full disk, or the directory is gone: tried again
                    check()
