"""Activation offload with copies that run as late as their stream allows: only waits make them happen in time."""

from __future__ import annotations

import contextlib
import ctypes
import weakref
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from model.loss import resolve_loss
from model.transformer import build
from profiles.registry import load
from tests.unit.train.tiny_runs import NANO


class LateStream:
    """Runs what was launched on it when another waits for it; only the bytes then in memory are copied."""

    active: LateStream | None = None
    most_waiting = 0

    def __init__(self, *_: Any) -> None:
        self.launched = self.done = 0
        self._queue: deque[tuple[Tensor, weakref.ref[Any], weakref.ref[Any], tuple[int, int, int]]] = deque()

    def copy(self, target: Tensor, source: Tensor) -> None:
        host = target if target.device.type == "cpu" else source
        sides = (weakref.ref(target.untyped_storage()), weakref.ref(source.untyped_storage()))
        self._queue.append((host, *sides, (target.data_ptr(), source.data_ptr(), target.nbytes)))
        self.launched += 1
        LateStream.most_waiting = max(LateStream.most_waiting, len(self._queue))

    def run_until(self, count: int) -> None:
        while self.done < count:
            _, target, source, copy = self._queue.popleft()
            assert target() is not None and source() is not None, "memory was freed before its copy ran"
            ctypes.memmove(*copy)
            self.done += 1

    def record_event(self) -> LateEvent:
        return LateEvent(self)

    def wait_stream(self, other: Any) -> None:
        pass  # the computation is done when it is launched


class LateEvent:
    def __init__(self, stream: LateStream) -> None:
        self.stream, self.count = stream, stream.launched


class Computation:
    def wait_event(self, event: LateEvent) -> None:
        event.stream.run_until(event.count)


@pytest.fixture
def late_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Tensor.copy_

    def copy(self: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
        if LateStream.active is None:
            return plain(self, source, non_blocking)
        if self.device.type == "cuda":
            self.fill_(float("nan"))  # what is computed before the copy has run is seen
        LateStream.active.copy(self, source)
        return self

    @contextlib.contextmanager
    def on(stream: LateStream) -> Iterator[None]:
        LateStream.active = stream
        try:
            yield
        finally:
            LateStream.active = None

    LateStream.most_waiting = 0
    monkeypatch.setattr(Tensor, "copy_", copy)
    monkeypatch.setattr(torch.cuda, "Stream", LateStream)
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: Computation())


def gradients(checkpointing: Any, given_up: bool = False) -> dict[str, Tensor]:
    config = load("cpu_demo", [*NANO, "model.num_hidden_layers=4"]).model.config
    model = build(config, 3, checkpointing=checkpointing, device="cuda")
    ids = torch.randint(0, config.vocab_size, (2, 17), generator=torch.Generator().manual_seed(1)).to("cuda")
    loss = resolve_loss("fused")
    if given_up:
        with pytest.raises(RuntimeError, match="given up"):
            fail_in_backward(model, loss(model, ids[:, :-1], ids[:, 1:]))
        model.zero_grad()
    loss(model, ids[:, :-1], ids[:, 1:]).backward()
    return {name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None}


def fail_in_backward(model: Any, loss: Tensor) -> None:
    def fail(gradient: Tensor) -> None:
        raise RuntimeError("given up")

    handle = model.model.layers[2].self_attn.o_proj.weight.register_hook(fail)
    try:
        loss.backward()
    finally:
        handle.remove()


@pytest.mark.parametrize("given_up", [False, True])
def test_late_copies_give_the_gradients_of_full_checkpointing(late_copies: None, given_up: bool) -> None:
    expected, found = gradients("full"), gradients("offload", given_up)
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-7, msg=name)
    assert LateStream.most_waiting == 2  # the next one is launched before the one before it is waited for
