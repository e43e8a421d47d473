"""Finds the NVIDIA GPUs that a run would use, through NVML, without torch.

NVML counts GPUs in the order of the PCI bus, CUDA by default with the fastest first, and only CUDA knows what it takes
for the fastest. So a trainer is given the UUIDs that are found here (``visible_uuids``): then both mean the same GPU.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any


def visible_device() -> Any | None:
    """Return the NVML handle of the first device in ``CUDA_VISIBLE_DEVICES``, or None.

    NVML stays initialized until the process ends.
    """
    return next(iter(visible_devices(1)), None)


def visible_uuids(count: int | None = None) -> list[str]:
    """Return the UUIDs of the first ``count`` visible devices, or of all."""
    handles = visible_devices(count)
    if not handles:
        return []
    import pynvml as nv

    return [str(nv.nvmlDeviceGetUUID(handle)) for handle in handles]


def visible_devices(count: int | None = None) -> list[Any]:
    """Return the NVML handles of the first ``count`` devices in ``CUDA_VISIBLE_DEVICES``, or of all.

    As for CUDA, the fastest is the first unless ``CUDA_DEVICE_ORDER`` is PCI_BUS_ID, the list ends at the first that
    does not exist, a UUID may be abbreviated, and of a GPU that is divided (MIG) only the first part is used unless the
    variable names another. Without the variable all GPUs are visible.
    """
    try:
        import pynvml as nv
    except ImportError:
        return []
    handles: list[Any] = []
    with contextlib.suppress(nv.NVMLError):
        nv.nvmlInit()
        gpus = _in_order()
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = map(str, range(len(gpus))) if visible is None else visible.split(",")
        for name in map(str.strip, names):
            if len(handles) == count or (handle := _named(name, gpus)) is None:
                break
            handles.append(handle)
    return handles


def power_limit(count: int) -> float | None:
    """Return the watts that the first ``count`` visible devices may draw together; None where one reports none."""
    handles = visible_devices(count)
    if not handles:
        return None
    import pynvml as nv

    try:
        return float(sum(nv.nvmlDeviceGetEnforcedPowerLimit(handle) for handle in handles)) / 1000
    except nv.NVMLError:
        return None


def _in_order() -> list[Any]:
    """Return all GPUs in the order in which CUDA counts them."""
    import pynvml as nv

    gpus = [nv.nvmlDeviceGetHandleByIndex(index) for index in range(nv.nvmlDeviceGetCount())]
    by_bus = os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    return gpus if by_bus or len(gpus) < 2 else sorted(gpus, key=_speed, reverse=True)  # equal ones stay as they are


def _speed(gpu: Any) -> int:
    """Return cores times their clock, or 0 where the driver does not tell."""
    import pynvml as nv

    try:
        return int(nv.nvmlDeviceGetNumGpuCores(gpu) * nv.nvmlDeviceGetMaxClockInfo(gpu, nv.NVML_CLOCK_SM))
    except nv.NVMLError:
        return 0


def _named(name: str, gpus: list[Any]) -> Any | None:
    """Return the GPU that an entry of ``CUDA_VISIBLE_DEVICES`` names by number or UUID; None if there is none."""
    import pynvml as nv

    if name.isdigit():
        return _first_part(gpus[int(name)]) if int(name) < len(gpus) else None
    if name.startswith("MIG-"):
        return nv.nvmlDeviceGetHandleByUUID(name)
    found = [gpu for gpu in gpus if name and str(nv.nvmlDeviceGetUUID(gpu)).startswith(name)]
    return _first_part(found[0]) if len(found) == 1 else None


def _first_part(gpu: Any) -> Any:
    """Return the first MIG instance of a GPU that is divided into some, else the GPU itself."""
    import pynvml as nv

    try:
        if nv.nvmlDeviceGetMigMode(gpu)[0] != nv.NVML_DEVICE_MIG_ENABLE:
            return gpu
        return nv.nvmlDeviceGetMigDeviceHandleByIndex(gpu, 0)
    except nv.NVMLError:  # not supported by this GPU, or it has no instance
        return gpu
