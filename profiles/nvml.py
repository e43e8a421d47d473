"""The NVIDIA card a run would take, as its driver sees it; no torch needed."""

from __future__ import annotations

import os
from typing import Any


def visible_device() -> Any | None:
    """The NVML handle of the first device ``CUDA_VISIBLE_DEVICES`` leaves, or None where there is none.

    NVML stays initialised for the life of the process.
    """
    return next(iter(_visible_devices()), None)


def visible_uuids(count: int) -> list[str]:
    """The UUIDs of the first ``count`` devices ``CUDA_VISIBLE_DEVICES`` leaves; fewer where there are not as many."""
    handles = _visible_devices()[:count]
    if not handles:
        return []
    import pynvml as nv

    return [str(nv.nvmlDeviceGetUUID(handle)) for handle in handles]


def _visible_devices() -> list[Any]:
    """The NVML handles of what ``CUDA_VISIBLE_DEVICES`` leaves, up to the first that does not exist, as CUDA does."""
    try:
        import pynvml as nv
    except ImportError:
        return []
    handles: list[Any] = []
    try:
        nv.nvmlInit()
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = map(str, range(nv.nvmlDeviceGetCount())) if visible is None else visible.split(",")
        for name in (name.strip() for name in names):
            if name in ("", "-1"):
                break
            by_index = name.isdigit()
            handles.append(nv.nvmlDeviceGetHandleByIndex(int(name)) if by_index else nv.nvmlDeviceGetHandleByUUID(name))
    except nv.NVMLError:
        pass
    return handles
