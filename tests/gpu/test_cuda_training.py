"""The torch backend on a real card. Skipped with the reason where there is none."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.checkpoints import checkpoint
from engine.train.backends.torch_backend import TorchBackend
from engine.train.measure.grid import Budget, build_cell, measure_cell
from profiles.registry import load
from profiles.spec import RunSpec

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU, and this machine shows none"),
]


def tiny(*overrides: str) -> RunSpec:
    return load("cpu_demo", ["context=128", "sequences=4", "micro=4", "optim.name=adamw", *overrides])


def steps(backend: TorchBackend, spec: RunSpec, count: int) -> list[float]:
    """Return the losses of ``count`` steps on one random batch."""
    batch = np.random.default_rng(1).integers(0, spec.model.config.vocab_size, (4, 129))
    found = []
    for _ in range(count):
        backend.accumulate(batch, spec.tokens_per_step, last=True)
        found.append(backend.window_totals()[0])
        backend.optimizer_step(1e-3, 1.0)
    return found


def losses(spec: RunSpec, count: int) -> list[float]:
    return steps(TorchBackend(spec), spec, count)


def test_losses_on_the_card_equal_those_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    on_card = losses(tiny(), 10)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert on_card == pytest.approx(losses(tiny(), 10), rel=1e-4)


def test_bf16_learns() -> None:
    found = losses(tiny("train.precision=bf16"), 30)
    assert found[-1] < 0.8 * found[0]


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["optim.name=muon"],
        ["optim.name=muon", "train.precision=bf16_sr"],
        ["memory.strategy=states8bit"],
        pytest.param(
            ["memory.strategy=states8bit", "train.precision=bf16_sr", "train.compile=on"],
            marks=pytest.mark.skipif(torch.version.cuda is None, reason="runs kernels that only a real card can run"),
        ),
    ],
    ids=" ".join,
)
def test_a_resumed_deterministic_run_continues_bit_for_bit(
    overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    spec = tiny("train.deterministic=true", *overrides)
    first = TorchBackend(spec)
    steps(first, spec, 3)
    state = {part: {name: t.clone() for name, t in tensors.items()} for part, tensors in first.state_dict().items()}
    steps(first, spec, 3)
    second = TorchBackend(spec)
    second.load_state_dict(state)
    steps(second, spec, 3)
    for name, tensor in first.state_dict()["model"].items():
        assert torch.equal(tensor, second.state_dict()["model"][name]), name


def test_a_paused_run_is_offloaded_and_restored_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    spec = tiny("train.deterministic=true", "micro=2")
    batch = np.random.default_rng(1).integers(0, spec.model.config.vocab_size, (4, 129))
    weights = []
    for paused in (False, True):
        backend = TorchBackend(spec)
        for _ in range(3):
            backend.accumulate(batch[:2], spec.tokens_per_step, last=False)
            if paused:
                before = torch.cuda.memory_allocated()
                assert backend.offload_for_pause() >= 0
                moved = before - torch.cuda.memory_allocated()
                assert moved >= sum(
                    p.nbytes for p in backend.model.parameters()
                )  # and the moments from the second step on
                backend.restore_after_pause()
                assert torch.cuda.memory_allocated() >= before - moved // 100
            backend.accumulate(batch[2:], spec.tokens_per_step, last=True)
            backend.window_totals()
            backend.optimizer_step(1e-3, 1.0)
        weights.append({name: tensor.clone() for name, tensor in backend.state_dict()["model"].items()})
    straight, paused_weights = weights
    assert all(torch.equal(tensor, paused_weights[name]) for name, tensor in straight.items())


def test_a_checkpoint_saved_during_the_next_forward_is_that_of_its_step(tmp_path: Path) -> None:
    spec = tiny()
    backend = TorchBackend(spec)
    steps(backend, spec, 2)
    expected = {name: tensor.cpu().clone() for name, tensor in backend.state_dict()["model"].items()}
    state = backend.state_dict()
    writer = threading.Thread(target=checkpoint.save, args=(tmp_path, 2, state, {}, None))
    writer.start()
    batch = np.random.default_rng(1).integers(0, spec.model.config.vocab_size, (4, 129))
    backend.accumulate(batch, spec.tokens_per_step, last=True)
    writer.join()
    loaded = checkpoint.load(tmp_path / "ckpt_step_2", ("model",))[0]["model"]
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.items())


def test_a_benchmark_has_the_peaks_of_the_card() -> None:
    found = measure_cell(build_cell("cpu_demo", ["context=128"], {}, synthetic=True), Budget(steps=2))
    assert found["device"] == "cuda"
    assert 12 * found["params"] < found["peak"]["device"] <= found["peak"]["device_reserved"]
    assert 0 < found["matmul_peak_fraction"] < 1


def test_under_a_small_cap_a_benchmark_is_out_of_memory() -> None:
    found = measure_cell(build_cell("cpu_demo", [], {}, synthetic=True), Budget(steps=2, cap_gib=0.03))
    assert found["error"] == "out of memory"
    assert found["cap_bytes"] == round(0.03 * 2**30)
