"""Starts threads that cost little memory, where the process may have them."""

from __future__ import annotations

import resource
import threading
from collections.abc import Callable

_STACK_BYTES = 256 << 10  # the usual 8 MiB count against a limit on the address space


def start_daemon(name: str, run: Callable[..., object], *args: object) -> threading.Thread | None:
    """Run ``run(*args)`` in a daemon thread of a small stack, and return it; None where there can be no further one.

    Under a limit on the address space (``ulimit -v``) there is none: what the C library reserves for a thread (64 MiB
    for its heap) would be missing for the training step and the checkpoint.
    """
    if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        return None
    thread = threading.Thread(target=run, args=args, name=name, daemon=True)
    before = threading.stack_size(_STACK_BYTES)
    try:
        thread.start()
    except RuntimeError:  # the limit on processes is reached
        return None
    finally:
        threading.stack_size(before)
    return thread
