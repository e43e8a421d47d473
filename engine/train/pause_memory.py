"""Gives away the memory of a paused run, and takes it back when the run resumes, on every rank."""

from __future__ import annotations

from engine.train.backends.backend import Backend
from engine.train.backends.ranks import Ranks
from profiles.errors import UserError

LEAST_SHOWN = 5e7  # bytes; if less was freed, no user would see it


class PauseMemory:
    def __init__(self, backend: Backend, ranks: Ranks) -> None:
        self._backend, self._ranks = backend, ranks

    def release(self) -> str:
        """Free the memory of all ranks; return how much that was, as the end of a reason, or nothing."""
        freed = self._ranks.sum_over_ranks(self._backend.offload_for_pause())
        return f"; {freed / 1e9:.1f} GB of memory freed" if freed >= LEAST_SHOWN else ""

    def reclaim(self) -> str:
        """Take the memory back; return why it cannot be had, on whichever rank, or nothing."""
        why = ""
        try:
            self._backend.restore_after_pause()
        except UserError as error:
            why = str(error)
        failed = self._ranks.sum_over_ranks(bool(why))
        return why or ("another rank does not have the memory any more; resume again" if failed else "")
