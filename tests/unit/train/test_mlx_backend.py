"""MLX has the losses and checkpoints of plain torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.checkpoints import checkpoint
from engine.train.backends.backend import Backend
from engine.train.backends.mlx_backend import MLXBackend
from engine.train.backends.torch_backend import TorchBackend
from profiles.errors import UserError
from profiles.registry import load
from profiles.spec import RunSpec

torch.set_num_threads(1)

NANO = [
    *("model.hidden_size=64", "model.num_hidden_layers=2", "model.num_attention_heads=2", "model.vocab_size=256"),
    *("model.qk_nope_head_dim=16", "model.qk_rope_head_dim=16", "model.v_head_dim=32", "model.kv_lora_rank=32"),
    *("model.intermediate_size=128", "context=32", "sequences=24", "micro=8", "optim.name=adamw"),
]
LR = 3e-3
STEPS = range(8)


def nano(*more: str) -> RunSpec:
    return load("cpu_demo", [*NANO, *more])


def mlx(*more: str) -> MLXBackend:
    return MLXBackend(nano("backend=mlx", *more))


def batch(step: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.cumsum(np.random.default_rng(step).integers(0, 4, (24, 33)), axis=1) % 256


def train(backend: Backend, steps: range, accum: int = 1, clip: float = 1.0) -> list[float]:
    losses = []
    for step in steps:
        for rows in np.split(batch(step), accum):
            backend.accumulate(rows, 24 * 32, last=True)
        losses.append(backend.window_totals()[0])
        backend.optimizer_step(LR, clip)
    return losses


@pytest.mark.parametrize(
    ("how", "accum"),
    [
        *(("compile=off", accum) for accum in (1, 3, 8)),
        *((how, 3) for how in ("compile=on", "memory.checkpointing=full", "memory.loss=fused", "optim.clip=0")),
    ],
)
def test_the_losses_are_those_of_torch(how: str, accum: int) -> None:
    clip = 0.0 if how == "optim.clip=0" else 1.0
    expected = train(TorchBackend(nano()), STEPS, 1, clip)
    assert train(mlx(how), STEPS, accum, clip) == pytest.approx(expected, rel=1e-3)


def test_norm_and_validation_are_those_of_torch() -> None:
    there, here = TorchBackend(nano()), mlx()
    assert here.evaluate(batch(0)) == pytest.approx(there.evaluate(batch(0)), rel=1e-5)
    for backend in (there, here):
        backend.accumulate(batch(0), 24 * 32, last=True)
    assert here.window_totals() == pytest.approx(there.window_totals(), rel=1e-4)


def test_bf16_keeps_fp32_masters() -> None:
    backend = mlx("train.precision=bf16")
    found, exact = train(backend, STEPS), train(mlx(), STEPS)
    assert found == pytest.approx(exact, rel=0.01) and found != exact
    assert all(tensor.dtype == torch.float32 for tensor in backend.state_dict()["model"].values())


def test_a_discarded_window_leaves_nothing() -> None:
    undisturbed, disturbed = mlx(), mlx()
    disturbed.accumulate(batch(7), 24 * 32, last=True)
    disturbed.discard_window()
    assert train(disturbed, range(3), 3) == train(undisturbed, range(3), 3)


def reopened(tmp_path: Path, backend: Backend) -> Any:
    path, _ = checkpoint.save(tmp_path, 1, backend.state_dict(), {}, None)
    return checkpoint.load(path)[0]


MAKERS: dict[str, Callable[[], Backend]] = {"torch": lambda: TorchBackend(nano()), "mlx": mlx}


@pytest.mark.parametrize(
    ("first", "second"), [("torch", "mlx"), ("mlx", "torch"), pytest.param("mlx", "mlx", marks=pytest.mark.faults)]
)
def test_a_run_resumes_with_the_other_backend(first: str, second: str, tmp_path: Path) -> None:
    straight, started, resumed = MAKERS[first](), MAKERS[first](), MAKERS[second]()
    train(straight, range(4))
    train(started, range(4))
    saved = reopened(tmp_path, started)
    resumed.load_state_dict(saved)
    held = {"model": resumed.state_dict()["model"], "optimizer": resumed.state_dict()["optimizer"]}
    for part, tensors in held.items():
        shared = {name for name in saved[part] if not name.startswith("rng/")}
        assert shared == {name for name in tensors if not name.startswith("rng/")}
        assert all(torch.equal(tensors[name], saved[part][name]) for name in shared), part
    expected, found = train(straight, range(4, 10)), train(resumed, range(4, 10))
    if first == second:
        assert found == expected
    assert found == pytest.approx(expected, rel=1e-3)


def test_loading_weights_only(tmp_path: Path) -> None:
    started, fresh = TorchBackend(nano()), mlx()
    train(started, range(3))
    fresh.load_weights(reopened(tmp_path, started)["model"])
    assert fresh.evaluate(batch(5)) == pytest.approx(started.evaluate(batch(5)), rel=1e-5)
    assert "step" not in fresh.state_dict()["optimizer"]


@pytest.mark.parametrize("wrong", [-1, 256])
@pytest.mark.parametrize("method", ["accumulate", "evaluate"])
def test_an_id_outside_the_vocabulary_never_reaches_mlx(method: str, wrong: int) -> None:
    backend, rows = mlx(), batch(0)
    rows[3, 5] = wrong
    arguments = (rows, 24 * 32, True) if method == "accumulate" else (rows,)
    with pytest.raises(UserError, match=rf"token id {wrong} is outside the model's vocabulary of 256"):
        getattr(backend, method)(*arguments)


def test_another_model_is_refused(tmp_path: Path) -> None:
    other = MLXBackend(nano("model.hidden_size=32"))
    with pytest.raises(UserError, match=r"checkpoint: .* should be \(256, 64\) and is \(256, 32\)"):
        mlx().load_state_dict(reopened(tmp_path, other))


def test_unified_memory_is_reported() -> None:
    backend = mlx()
    train(backend, range(1))
    memory = backend.unified_memory()
    assert 0 < memory["unified_active"] <= memory["unified_peak"] <= memory["unified_limit"]
    assert memory["unified_cache"] >= 0
