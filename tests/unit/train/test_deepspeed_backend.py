"""DeepSpeed has the losses and checkpoints of plain torch."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.checkpoints import checkpoint
from engine.memory.states import zero_host
from engine.train.backends.backend import Backend
from engine.train.backends.deepspeed_backend import DeepSpeedBackend
from engine.train.backends.ranks import Ranks, SingleRank
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


def nano(*more: str) -> RunSpec:
    return load("cpu_demo", [*NANO, *more])


def deepspeed(*more: str) -> DeepSpeedBackend:
    return DeepSpeedBackend(nano("backend=deepspeed", *more), SingleRank())


def batch(step: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.cumsum(np.random.default_rng(step).integers(0, 4, (24, 33)), axis=1) % 256


def train(
    backend: Backend, steps: range, accum: int, clip: float = 1.0, ranks: Ranks | None = None
) -> list[tuple[float, float]]:
    """Return loss and gradient norm of each step, trained on this rank's part of the sequences."""
    ranks, found = ranks or SingleRank(), []
    for step in steps:
        rows_of_rank = np.split(batch(step), ranks.size)[ranks.rank]
        micro_batches = np.array_split(rows_of_rank, accum)
        for done, rows in enumerate(micro_batches, start=1):
            backend.accumulate(rows, 24 * 32, last=done == len(micro_batches))
        found.append(backend.window_totals())
        backend.optimizer_step(LR, clip)
    return found


@pytest.mark.parametrize("accum", [1, 3, 8])
@pytest.mark.parametrize("clip", [1.0, 0.0])
def test_the_losses_are_those_of_torch(accum: int, clip: float) -> None:
    expected = train(TorchBackend(nano()), range(20), accum, clip)
    found = train(deepspeed(), range(20), accum, clip)
    assert [loss for loss, _ in found] == pytest.approx([loss for loss, _ in expected], rel=1e-5)
    assert [norm for _, norm in found] == pytest.approx([norm for _, norm in expected], rel=1e-3)


def test_muon_has_the_losses_of_torch() -> None:
    muon = ("optim.name=muon", "optim.muon_lr=1e-2", "optim.weight_decay=0.3")
    expected = train(TorchBackend(nano(*muon)), range(12), 3)
    found = train(deepspeed(*muon), range(12), 3)
    # Each update passes through bf16, so the last bits of a gradient count for more.
    assert [loss for loss, _ in found] == pytest.approx([loss for loss, _ in expected], rel=1e-4)


def test_masked_documents_have_the_losses_of_torch() -> None:
    expected = train(TorchBackend(nano("documents=mask"), document_end=3), range(6), 3)
    spec = nano("backend=deepspeed", "documents=mask")
    found = train(DeepSpeedBackend(spec, SingleRank(), document_end=3), range(6), 3)
    assert [loss for loss, _ in found] == pytest.approx([loss for loss, _ in expected], rel=1e-5)
    assert [norm for _, norm in found] == pytest.approx([norm for _, norm in expected], rel=1e-3)
    assert found[0][0] != train(deepspeed(), range(1), 3)[0][0]


@pytest.mark.parametrize(
    ("ranks", "runs"),
    [
        (
            2,
            {
                **{"backend=torch": 1e-5, "backend=torch,train.precision=bf16_sr": 1e-3},
                **{"backend=deepspeed": 1e-5, "backend=deepspeed,optim.name=muon,model.num_hidden_layers=3": 1e-4},
            },
        ),
        pytest.param(4, {"backend=torch": 1e-5}, marks=pytest.mark.faults),
    ],
)
def test_several_ranks_have_the_losses_of_one_rank(ranks: int, runs: dict[str, float]) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    done = subprocess.run(
        [*launcher, str(Path(__file__).parent / "several_ranks.py"), *runs],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "PYTHONPATH": str(Path(__file__).parents[3]),
        },
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    for run, close in runs.items():
        settings = [one for one in run.split(",") if not one.startswith("backend=")]
        straight = TorchBackend(nano(*settings, "optim.ema=0.9"))
        alone = deepspeed(*settings, "optim.ema=0.9").host_states() if "deepspeed" in run else 0
        expected = [loss for loss, _ in train(straight, range(10), 3)]
        for accum in (1, 3):
            result = found[f"{run} {accum}"]
            assert result["losses"] == pytest.approx(expected, rel=close), (run, accum)
            # Each rank's partition is padded, and a window's gradient sums come on top.
            states = result["host_states"]
            assert alone <= states <= 1.5 * alone
        if "bf16_sr" in run:
            continue  # which weight is rounded up differs with the last bits of its gradient
        state = straight.state_dict()
        for part in ("model", "ema"):
            for name, tensor in state[part].items():
                there = found[f"{run} weights"][f"{part}/{name}"]
                assert there == pytest.approx(float(tensor.double().sum()), rel=1e-3, abs=1e3 * close)


def test_micro_may_change_between_two_steps() -> None:
    expected = train(TorchBackend(nano()), range(12), 1)
    backend = deepspeed()
    found = [*train(backend, range(4), 3), *train(backend, range(4, 8), 8), *train(backend, range(8, 12), 1)]
    assert [loss for loss, _ in found] == pytest.approx([loss for loss, _ in expected], rel=1e-5)


def test_a_discarded_window_leaves_nothing() -> None:
    undisturbed, disturbed = deepspeed(), deepspeed()
    train(disturbed, range(1), 3)
    for rows in np.split(batch(7), 3)[:2]:
        disturbed.accumulate(rows, 24 * 32, last=False)
    disturbed.discard_window()
    assert train(disturbed, range(1, 4), 3) == train(undisturbed, range(4), 3)[1:]


def test_nan_is_returned_and_not_applied() -> None:
    backend = deepspeed()
    before = {name: tensor.clone() for name, tensor in backend.state_dict()["model"].items()}
    with torch.no_grad():
        next(iter(backend._parameters.values())).fill_(float("nan"))
    backend.accumulate(batch(0), 24 * 32, last=True)
    loss, norm = backend.window_totals()
    assert not np.isfinite(loss) and not np.isfinite(norm)
    assert all(torch.equal(tensor, before[name]) for name, tensor in backend.state_dict()["model"].items())


def test_bf16_keeps_fp32_masters() -> None:
    backend = deepspeed("train.precision=bf16")
    exact = train(TorchBackend(nano()), range(20), 3)
    found = train(backend, range(20), 3)
    assert all(p.dtype == torch.bfloat16 for p in backend._parameters.values())
    assert all(tensor.dtype == torch.float32 for tensor in backend.state_dict()["model"].values())
    assert [loss for loss, _ in found] == pytest.approx([loss for loss, _ in exact], rel=0.01)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_states_are_in_host_memory_and_in_the_forecast(optimizer: str) -> None:
    spec = nano("backend=deepspeed", f"optim.name={optimizer}", "memory.strategy=offload")
    backend = DeepSpeedBackend(spec, SingleRank())
    forecast = zero_host(spec, width=4, pinned=False)
    states = forecast["masters"] + forecast["gradients"] + forecast["moments"]
    assert states <= backend.host_states() <= states + 1024  # DeepSpeed pads each group
    train(backend, range(1), 3)
    assert backend.host_states() <= states + 4 * spec.model.config.params + 1024  # and the window's gradient sums


def reopened(tmp_path: Path, backend: Backend) -> Any:
    """Save a checkpoint and return what loading it gives."""
    path, _ = checkpoint.save(tmp_path, 1, backend.state_dict(), {}, None)
    return checkpoint.load(path)[0]


MAKERS: dict[str, Callable[..., Backend]] = {"torch": lambda *more: TorchBackend(nano(*more)), "deepspeed": deepspeed}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize(("first", "second"), list(itertools.product(MAKERS, MAKERS)))
def test_a_run_resumes_with_the_other_backend(first: str, second: str, optimizer: str, tmp_path: Path) -> None:
    straight, started, resumed = (MAKERS[name](f"optim.name={optimizer}") for name in (first, first, second))
    train(straight, range(10), 3)
    train(started, range(10), 3)
    saved = reopened(tmp_path, started)
    resumed.load_state_dict(saved)
    for part, held in resumed.state_dict().items():
        assert held.keys() == saved[part].keys()
        assert all(torch.equal(tensor, saved[part][name]) for name, tensor in held.items()), part
    expected, found = train(straight, range(10, 30), 3), train(resumed, range(10, 30), 3)
    if first == second:
        assert found == expected
    assert [loss for loss, _ in found] == pytest.approx([loss for loss, _ in expected], rel=1e-3)


def test_loading_weights_only(tmp_path: Path) -> None:
    started, fresh = TorchBackend(nano()), deepspeed()
    train(started, range(3), 1)
    fresh.load_weights(reopened(tmp_path, started)["model"])
    assert fresh.evaluate(batch(5)) == started.evaluate(batch(5))
    assert "step" not in fresh.state_dict()["optimizer"]


def test_a_checkpoint_without_moments_is_refused(tmp_path: Path) -> None:
    muon = TorchBackend(nano("optim.name=muon"))
    train(muon, range(2), 1)
    with pytest.raises(UserError, match=r"has no exp_avg of .*optim\.name"):
        deepspeed().load_state_dict(reopened(tmp_path, muon))


def test_the_plan_names_what_runs() -> None:
    plan = deepspeed().plan
    assert (plan["backend"], plan["optimizer"]) == ("deepspeed", "DeepSpeedCPUAdam")
    assert plan["strategy"] == "offload (ZeRO-2, 1 rank)"
