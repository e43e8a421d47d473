"""The NVIDIA card a run would take, as its driver sees it; no torch needed."""

from __future__ import annotations

import os
from typing import Any


def visible_device() -> Any | None:
    """The NVML handle of the first device ``CUDA_VISIBLE_DEVICES`` leaves, or None where there is none.

    NVML stays initialised for the life of the process.
    """
    try:
        import pynvml as nv
    except ImportError:
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    if visible in ("", "-1"):
        return None
    try:
        nv.nvmlInit()
        if visible.isdigit():
            return nv.nvmlDeviceGetHandleByIndex(int(visible))
        return nv.nvmlDeviceGetHandleByUUID(visible)
    except nv.NVMLError:
        return None
