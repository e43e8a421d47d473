"""Sets what CUDA and its allocator read from the environment, before the process uses a card for the first time."""

from __future__ import annotations

import os

from profiles.nvml import visible_uuids

ALLOCATOR = "PYTORCH_ALLOC_CONF"
_OLD_NAME = "PYTORCH_CUDA_ALLOC_CONF"  # torch before 2.9; still read


def prepare_cuda() -> None:
    """Name the visible cards by UUID, and ask torch's allocator for segments that grow; nothing without a card.

    UUIDs mean the same to CUDA and to NVML, which numbers do not, and a launcher's ranks keep the cards that the run
    has locked. Segments that grow lose less memory to gaps when the micro-batch or the context changes. A user's own
    settings of the allocator are kept.
    """
    uuids = visible_uuids()
    if not uuids:
        return
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(uuids)
    if not {ALLOCATOR, _OLD_NAME} & os.environ.keys():
        os.environ[ALLOCATOR] = "expandable_segments:True"
