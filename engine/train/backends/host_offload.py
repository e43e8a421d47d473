"""Moves the tensors of a paused run to host memory and back, and empties allocator caches."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable

import psutil
import torch
from torch import Tensor

from engine.memory.limits import host_memory
from profiles.errors import UserError

HOST_RESERVE = 1 << 30  # bytes of host memory that a pause leaves free


class HostOffload:
    """Device tensors that are in host memory for a while. Nothing may compute with them until ``restore``."""

    def __init__(self) -> None:
        self._offloaded: list[tuple[Tensor, torch.device]] = []

    def offload(self, tensors: Iterable[Tensor], device: str) -> None:
        """Move the tensors that are on ``device`` (a type: "cuda") to host memory, in place, if all of them fit."""
        moving = list({id(tensor): tensor for tensor in tensors if tensor.device.type == device}.values())
        if sum(tensor.nbytes for tensor in moving) + HOST_RESERVE > host_memory()[1]:
            return
        for tensor in moving:
            origin = tensor.device
            tensor.data = tensor.data.to("cpu", copy=True)
            self._offloaded.append((tensor, origin))

    def restore(self) -> None:
        """Move them back. Raises ``UserError`` where memory is short; those already moved stay on the device."""
        while self._offloaded:
            tensor, origin = self._offloaded[-1]
            try:
                tensor.data = tensor.data.to(origin, copy=True)
            except torch.OutOfMemoryError:
                missing = sum(tensor.nbytes for tensor, _ in self._offloaded)
                raise UserError(
                    f"{origin}: does not have {missing / 1e9:.1f} GB free for this run any more; stop what uses it and"
                    " resume again"
                ) from None
            self._offloaded.pop()


def empty_cache(device: str) -> None:
    """Free the caches of torch's CUDA allocator and of the C library."""
    if device == "cuda":
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
    if trim is not None:
        trim(0)


def memory_in_use(device: str) -> int:
    """Return the bytes reserved on the card, or on a CPU this process's resident set."""
    return torch.cuda.memory_reserved() if device == "cuda" else psutil.Process().memory_info().rss
