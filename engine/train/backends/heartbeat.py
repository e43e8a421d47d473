"""Detects dead ranks with heartbeats, because gloo can wait for a dead rank forever.

Each rank increments a counter in the rendezvous store; rank 0 watches all others, and they watch rank 0. A counter that
does not change for ``TIMEOUT`` ends this process, and the launcher and supervisor restart all ranks. So does a store
that does not answer for as long: a call to it has no time limit, and where the network drops packets it returns only
when the kernel gives up the connection.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

from engine.events.exit_codes import EXIT_RETRY
from engine.host.files import write_stderr

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

INTERVAL = 1.0  # seconds between two beats
TIMEOUT = 30.0  # seconds; a busy rank still beats, because its thread needs only a moment of Python


class Heartbeat(threading.Thread):
    """Beats until ``stop``. ``store`` must not be used by another thread."""

    def __init__(self, store: Store, rank: int, size: int) -> None:
        super().__init__(daemon=True, name="heartbeat")
        self._store = store
        self._rank = rank
        self._seen = dict.fromkeys(range(1, size) if rank == 0 else [0], (b"", time.monotonic()))
        self._stopped = threading.Event()
        self._beats = 0

    def stop(self) -> None:
        self._stopped.set()

    def run(self) -> None:
        threading.Thread(target=self._watch_store, daemon=True, name="store watch").start()
        try:
            while not self._stopped.wait(INTERVAL):
                self._store.set(f"heartbeat/{self._rank}", str(self._beats + 1))
                if (dead := self._dead_rank()) is not None:
                    self._exit(f"rank {dead} sent no heartbeat for {TIMEOUT:g} s")
                self._beats += 1
        except RuntimeError as error:  # the store is on the machine of rank 0
            self._exit(f"the machine of rank 0 cannot be reached: {error}")

    def _watch_store(self) -> None:
        """End this process if the other thread's calls to the store no longer return.

        Intervals are counted, not seconds: a process that was stopped for a while has not been without an answer.
        """
        seen, waited = -1, 0
        while not self._stopped.wait(INTERVAL):
            seen, waited = (self._beats, 0) if self._beats != seen else (seen, waited + 1)
            if waited * INTERVAL > TIMEOUT:
                self._exit(f"the machine of rank 0 has not answered for {TIMEOUT:g} s")

    def _dead_rank(self) -> int | None:
        now = time.monotonic()
        for rank, (count, since) in self._seen.items():
            key = f"heartbeat/{rank}"
            found = self._store.get(key) if self._store.check([key]) else b""
            if found != count:
                self._seen[rank] = (found, now)
            elif now - since > TIMEOUT:
                return rank
        return None

    def _exit(self, why: str) -> None:
        if not self._stopped.is_set():
            write_stderr(f"{why}; all ranks restart")
            os._exit(EXIT_RETRY)  # the main thread may never return from its collective
