"""Finds the NVIDIA GPUs that a run would use, through NVML, without torch."""

from __future__ import annotations

import os
from typing import Any


def visible_device() -> Any | None:
    """Return the NVML handle of the first device in ``CUDA_VISIBLE_DEVICES``, or None.

    NVML stays initialized until the process ends.
    """
    return next(iter(_visible_devices()), None)


def visible_uuids(count: int) -> list[str]:
    """Return the UUIDs of the first ``count`` devices in ``CUDA_VISIBLE_DEVICES``, or of all if there are fewer."""
    handles = _visible_devices()[:count]
    if not handles:
        return []
    import pynvml as nv

    return [str(nv.nvmlDeviceGetUUID(handle)) for handle in handles]


def _visible_devices() -> list[Any]:
    """Return the NVML handles of ``CUDA_VISIBLE_DEVICES``, up to the first that does not exist, as CUDA does."""
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
