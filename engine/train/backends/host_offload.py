"""Memory that a paused run gives back."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable

import psutil
import torch
from torch import Tensor

from profiles.errors import UserError

HOST_RESERVE = 1 << 30  # bytes of host memory that a pause leaves alone


class HostOffload:
    """Tensors of a device that wait in host memory, and the way back. Nothing may compute with them meanwhile."""

    def __init__(self) -> None:
        self._away: list[tuple[Tensor, torch.device]] = []

    def offload(self, tensors: Iterable[Tensor], device: str) -> None:
        """Move those that lie on ``device`` (a type: "cuda") to host memory, in place, if all of them fit there."""
        moving = list({id(tensor): tensor for tensor in tensors if tensor.device.type == device}.values())
        if sum(tensor.nbytes for tensor in moving) + HOST_RESERVE > psutil.virtual_memory().available:
            return
        for tensor in moving:
            origin = tensor.device
            tensor.data = tensor.data.to("cpu", copy=True)
            self._away.append((tensor, origin))

    def restore(self) -> None:
        """Move them back; what has come back stays where the rest does not fit. Raises ``UserError``."""
        while self._away:
            tensor, origin = self._away[-1]
            try:
                tensor.data = tensor.data.to(origin, copy=True)
            except torch.OutOfMemoryError:
                away = sum(tensor.nbytes for tensor, _ in self._away)
                raise UserError(
                    f"{origin}: has no room any more for {away / 1e9:.1f} GB of this run; end what has taken it and"
                    " resume again"
                ) from None
            self._away.pop()


def empty_cache(device: str) -> None:
    """Give back what the allocators keep for later use: torch's of the card, and the C library's of the host."""
    if device == "cuda":
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
    if trim is not None:
        trim(0)


def held(device: str) -> int:
    """Bytes of the memory that matters on ``device``: the card's, or this process's resident part of the host's."""
    return torch.cuda.memory_reserved() if device == "cuda" else psutil.Process().memory_info().rss
