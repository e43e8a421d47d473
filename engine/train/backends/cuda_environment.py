"""Sets what CUDA and its allocator read from the environment, before the process uses a card for the first time."""

from __future__ import annotations

import os

from engine.execution import allocator
from profiles.nvml import visible_uuids


def prepare_cuda() -> None:
    """Name the visible cards by UUID, and set torch's allocators; nothing without a card.

    UUIDs mean the same to CUDA and to NVML, which numbers do not, and a launcher's ranks keep the cards that the run
    has locked. A user's own settings of the allocators are kept.
    """
    uuids = visible_uuids()
    if not uuids:
        return
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(uuids)
    if not allocator.configured_by_user():
        os.environ[allocator.VARIABLE] = allocator.CONFIGURATION
