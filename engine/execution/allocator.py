"""Says what torch's allocators are asked for on a card, and whether pinned memory is rounded up to powers of two."""

from __future__ import annotations

import os
import re
from functools import cache

from engine.execution.installed import installed_version

VARIABLE = "PYTORCH_ALLOC_CONF"
_OLD_NAME = "PYTORCH_CUDA_ALLOC_CONF"  # torch before 2.9; still read
# Segments that grow lose less memory to gaps when the micro-batch or the context changes. Pinned memory is rounded up
# to a power of two only below a megabyte: of DeepSpeed's offloaded gigabytes the rounding would waste up to half.
ROUND_BELOW = 1 << 20
CONFIGURATION = f"expandable_segments:True,pinned_max_round_threshold_mb:{ROUND_BELOW >> 20}"
_ROUNDS_EXACTLY_SINCE = (2, 13)  # the first torch in which the threshold was seen


def configured_by_user() -> bool:
    """Return whether the user has set the allocators; then they are left as they are."""
    return bool({VARIABLE, _OLD_NAME} & os.environ.keys())


def pinned_bytes(size: int) -> int:
    """Return what torch allocates for ``size`` bytes of pinned memory, under the settings that a trainer will have."""
    if size > ROUND_BELOW and not configured_by_user() and _torch_version() >= _ROUNDS_EXACTLY_SINCE:
        return size
    return 1 << max(0, size - 1).bit_length() if size else 0


@cache
def _torch_version() -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", installed_version("torch") or "")[:2])
