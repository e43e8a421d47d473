"""The torch backend on a real card. Skipped, saying so, where there is none."""

from __future__ import annotations

import pytest
import torch

from engine.train.torch_backend import TorchBackend
from profiles.registry import load
from profiles.spec import RunSpec
from tests.gpu.harness import steps

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU, and this machine shows none"),
]


def tiny(*overrides: str) -> RunSpec:
    return load("cpu_demo", ["context=128", "sequences=4", "micro=4", *overrides])


def losses(spec: RunSpec, count: int) -> list[float]:
    import numpy as np

    backend = TorchBackend(spec)
    batch = np.random.default_rng(1).integers(0, spec.model.config.vocab_size, (4, 129))
    found = []
    for _ in range(count):
        backend.accumulate(batch, spec.tokens_per_step)
        found.append(backend.totals()[0])
        backend.apply(1e-3, 1.0)
    return found


def test_losses_on_the_card_equal_those_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    on_card = losses(tiny(), 10)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert on_card == pytest.approx(losses(tiny(), 10), rel=1e-4)


def test_bf16_learns() -> None:
    found = losses(tiny("train.precision=bf16"), 30)
    assert found[-1] < 0.8 * found[0]


def test_restoring_goes_on_bit_for_bit_when_deterministic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    spec = tiny("train.deterministic=true")
    first = TorchBackend(spec)
    steps(first, spec, 3)
    state = {part: {name: t.clone() for name, t in tensors.items()} for part, tensors in first.state().items()}
    steps(first, spec, 3)
    second = TorchBackend(spec)
    second.restore(state)
    steps(second, spec, 3)
    for name, tensor in first.state()["model"].items():
        assert torch.equal(tensor, second.state()["model"][name]), name


def test_the_peak_is_reported() -> None:
    backend = TorchBackend(tiny())
    steps(backend, tiny(), 1)
    peak = backend.device_peak()
    assert peak is not None and peak > 12 * tiny().model.config.params
