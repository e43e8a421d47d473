"""Keeps the inputs of blocks in host memory between forward and backward, for ``checkpointing = "offload"``.

On a card they are copied on a CUDA stream of their own, beside the computation: to the host while their block runs
forward, and back while the block above runs backward. Besides the input of the running block, the device holds at most
one that is on its way.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

AroundBlock = Callable[[Tensor], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class _OnItsWay:
    """A copy that may still run. ``device`` must live until the computation has waited for ``copied``."""

    device: Tensor
    host: Tensor
    copied: torch.cuda.Event


class StreamOffload:
    """The offload of one model. Each forward is followed by its backward, or by none."""

    def __init__(self) -> None:
        self._copies: torch.cuda.Stream | None = None
        self._out: _OnItsWay | None = None
        self._back: _OnItsWay | None = None

    @contextlib.contextmanager
    def forward(self) -> Iterator[AroundBlock]:
        """Yield what a block runs in: if ``stream_BTD`` is saved for backward there, it is kept in host memory."""
        self._finish_out()
        self._finish_back()  # left by a step that was given up
        yield partial(self._around_block, [])
        self._finish_out()

    @contextlib.contextmanager
    def _around_block(self, saved: list[Tensor], stream_BTD: Tensor) -> Iterator[None]:
        device = stream_BTD.device
        # The graph keeps ``pack`` alive, so it must not reference the tensor itself.
        address = stream_BTD.data_ptr()

        def pack(tensor: Tensor) -> Tensor | int:
            if tensor.data_ptr() != address:
                return tensor
            saved.append(self._to_host(tensor.detach()))
            return len(saved) - 1

        def unpack(packed: Tensor | int) -> Tensor:
            return self._to_device(saved, packed, device) if isinstance(packed, int) else packed

        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            yield

    def _to_host(self, stream_BTD: Tensor) -> Tensor:
        on_card = stream_BTD.device.type == "cuda"
        host = torch.empty(stream_BTD.shape, dtype=stream_BTD.dtype, device="cpu", pin_memory=on_card)
        if not on_card:
            return host.copy_(stream_BTD, non_blocking=True)
        sent = self._copy(host, stream_BTD)
        self._finish_out()  # the one before, which had the time of a block
        self._out = _OnItsWay(stream_BTD, host, sent)
        return host

    def _to_device(self, saved: list[Tensor], number: int, device: torch.device) -> Tensor:
        """Return input ``number`` on the device, and begin to fetch the one that backward needs next."""
        host = saved[number]
        if device.type != "cuda":
            return host.to(device, copy=True)
        if self._back is None or self._back.host is not host:
            self._fetch(host, device)
        assert self._back is not None
        fetched = self._back.device
        self._finish_back()
        if number:
            self._fetch(saved[number - 1], device)
        return fetched

    def _fetch(self, host: Tensor, device: torch.device) -> None:
        self._finish_back()
        buffer = torch.empty(host.shape, dtype=host.dtype, device=device)
        self._back = _OnItsWay(buffer, host, self._copy(buffer, host))

    def _copy(self, target: Tensor, source: Tensor) -> torch.cuda.Event:
        """Copy beside the computation, once all is done that was launched before."""
        if self._copies is None:
            self._copies = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._copies.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._copies):
            target.copy_(source, non_blocking=True)
        copied: torch.cuda.Event = self._copies.record_event()
        return copied

    def _finish_out(self) -> None:
        """Let the computation wait for the copy; what it launches later may use the memory of the device's tensor."""
        if self._out:
            torch.cuda.current_stream().wait_event(self._out.copied)
            self._out = None

    def _finish_back(self) -> None:
        if self._back:
            torch.cuda.current_stream().wait_event(self._back.copied)
            self._back = None


@contextlib.contextmanager
def no_offload() -> Iterator[AroundBlock]:
    """As ``StreamOffload.forward``, for models that keep everything on the device."""
    yield contextlib.nullcontext
