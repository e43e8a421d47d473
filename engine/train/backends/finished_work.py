"""Counts the micro-batches whose work a device has finished. On a card the host launches far ahead of it."""

from __future__ import annotations

from collections import deque

import torch


class FinishedWork:
    """The micro-batches of one accumulation window on ``device`` (cuda or cpu). The host never waits for any."""

    def __init__(self, device: str) -> None:
        self._events = device == "cuda"  # a CPU has done its work when the call returns
        self._launched = 0
        self._running: deque[torch.cuda.Event] = deque()

    def launched(self) -> None:
        """Count one more micro-batch, whose work has just been launched."""
        self._launched += 1
        if self._events:
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
            self._running.append(event)

    def count(self) -> int:
        """Return how many micro-batches are finished."""
        while self._running and self._running[0].query():  # type: ignore[no-untyped-call]
            self._running.popleft()
        return self._launched - len(self._running)

    def clear(self) -> None:
        """Begin a new window."""
        self._launched = 0
        self._running.clear()
