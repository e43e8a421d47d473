"""Offloading a paused run to host memory and restoring it changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from engine.train.backends.host_offload import HostOffload
from engine.train.backends.torch_backend import TorchBackend
from profiles.registry import load
from profiles.spec import RunSpec

torch.set_num_threads(1)


def tiny(*overrides: str) -> RunSpec:
    return load(
        "cpu_demo", ["optim.name=adamw", "context=32", "sequences=4", "micro=2", "train.deterministic=true", *overrides]
    )


def trained(spec: RunSpec, between: Any) -> dict[str, Any]:
    """Return weights and moments after three steps; ``between`` is called between the two micro-batches of each."""
    backend = TorchBackend(spec)
    for step in range(3):
        batch = np.random.default_rng(step).integers(0, spec.model.config.vocab_size, (4, 33))
        backend.accumulate(batch[:2], spec.tokens_per_step, last=False)
        between(backend)
        backend.accumulate(batch[2:], spec.tokens_per_step, last=True)
        backend.window_totals()
        backend.optimizer_step(1e-3, 1.0)
    return {
        f"{part}/{name}": t.clone() for part, tensors in backend.state_dict().items() for name, t in tensors.items()
    }


@pytest.mark.parametrize("overrides", [[], ["precision=bf16_sr"], ["memory.strategy=states8bit"]], ids=" ".join)
def test_offloading_and_restoring_within_a_window_changes_nothing(overrides: list[str]) -> None:
    """On a CPU the tensors move to other addresses of the same memory; tests/gpu does it on a card."""
    spec = tiny(*overrides)
    addresses = []

    def move(backend: TorchBackend) -> None:
        tensors = [*backend._parameters.values(), *backend._optimizer.state_dict().values()]
        before = [tensor.data_ptr() for tensor in tensors]
        offloaded = HostOffload()
        offloaded.offload(tensors, "cpu")
        away = [tensor.data_ptr() for tensor in tensors]
        addresses.append(sum(a != b for a, b in zip(before, away, strict=True)) / len(before))
        offloaded.restore()
        offloaded.restore()  # nothing left to restore

    straight, moved = trained(spec, lambda backend: None), trained(spec, move)
    assert min(addresses) == 1
    assert all(torch.equal(tensor, moved[name]) for name, tensor in straight.items())


def test_a_pause_leaves_a_run_on_a_cpu_unchanged() -> None:
    def pause(backend: TorchBackend) -> None:
        assert backend.offload_for_pause() >= 0
        backend.restore_after_pause()

    spec = tiny()
    straight, paused = trained(spec, lambda backend: None), trained(spec, pause)
    assert all(torch.equal(tensor, paused[name]) for name, tensor in straight.items())


def test_where_host_memory_is_short_nothing_is_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.train.backends.host_offload.HOST_RESERVE", 1 << 60)
    tensor = torch.ones(10)
    address = tensor.data_ptr()
    offloaded = HostOffload()
    offloaded.offload([tensor], "cpu")
    offloaded.restore()
    assert tensor.data_ptr() == address
