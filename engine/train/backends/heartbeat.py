"""Whether the other ranks still live, asked beside the sums: gloo has been seen to wait for a dead one without end.

Each rank counts up in the store that the launcher's rendezvous left us; rank 0 looks at all others, they at rank 0. A
count that stands still for ``PATIENCE`` ends this process, whose launcher and supervisor then begin all of them again.
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

BEAT = 1.0  # seconds
PATIENCE = 30.0  # a rank that is busy still beats: its thread needs nothing but a moment of Python


class Heartbeat(threading.Thread):
    """Beats until ``stop``; ``store`` must be this thread's own."""

    def __init__(self, store: Store, rank: int, size: int) -> None:
        super().__init__(daemon=True, name="pulse")
        self._store = store
        self._rank = rank
        self._seen = dict.fromkeys(range(1, size) if rank == 0 else [0], (b"", time.monotonic()))
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()

    def run(self) -> None:
        count = 0
        try:
            while not self._stopped.wait(BEAT):
                count += 1
                self._store.set(f"pulse/{self._rank}", str(count))
                if (lost := self._lost()) is not None:
                    self._give_up(f"rank {lost} has given no sign of life for {PATIENCE:g} s")
        except RuntimeError as error:  # the store went with the machine of rank 0
            self._give_up(f"the first machine cannot be reached any more: {error}")

    def _lost(self) -> int | None:
        now = time.monotonic()
        for rank, (count, since) in self._seen.items():
            key = f"pulse/{rank}"
            found = self._store.get(key) if self._store.check([key]) else b""
            if found != count:
                self._seen[rank] = (found, now)
            elif now - since > PATIENCE:
                return rank
        return None

    def _give_up(self, why: str) -> None:
        if not self._stopped.is_set():
            write_stderr(f"{why}; all ranks begin again from the last checkpoint")
            os._exit(EXIT_RETRY)  # the main thread may never return from the sum it waits in
