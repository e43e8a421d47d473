"""Keeps files in place while a process uses them: locks, and what other processes know it by."""

from __future__ import annotations

import contextlib
import resource
import threading
from collections.abc import Callable, Iterator

INTERVAL = 1.0  # seconds between checks
_STACK_BYTES = 256 << 10  # the usual 8 MiB count against a limit on the address space

Check = Callable[[], object]
_THREAD = "held files"
_checks: list[Check] = []
_running = threading.Lock()  # held while checks run: none is called after its block was left


@contextlib.contextmanager
def held(*checks: Check) -> Iterator[None]:
    """Call every one of ``checks`` once a second until the block is left. Each may raise ``OSError``.

    A thread does it, one for the whole process, because a training step may take minutes. Under a limit on the address
    space (``ulimit -v``) there is none: what the C library reserves for a thread would be missing for the checkpoint's.
    """
    if not any(thread.name == _THREAD for thread in threading.enumerate()) and not _address_space_is_limited():
        before = threading.stack_size(_STACK_BYTES)
        threading.Thread(target=_run, name=_THREAD, daemon=True).start()
        threading.stack_size(before)
    with _running:
        _checks.extend(checks)
    try:
        yield
    finally:
        with _running:
            for check in checks:
                _checks.remove(check)


def _address_space_is_limited() -> bool:
    return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY


def _run() -> None:
    pause = threading.Event()
    while not pause.wait(INTERVAL):
        with _running:
            for check in _checks:
                with contextlib.suppress(OSError):  # a full disk, or the directory is gone: tried again
                    check()
