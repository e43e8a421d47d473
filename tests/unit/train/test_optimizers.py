"""Optimizers and precisions train like plain AdamW in fp32, and each resumes from a checkpoint bit for bit."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from engine.checkpoints import checkpoint
from engine.memory.states import gradient_bytes, optimizer_bytes, weight_bytes
from engine.preflight import check_backend
from engine.train.backends.torch_backend import TorchBackend
from engine.train.optim.optimizer import build_optimizer
from engine.train.optim.precision import gradient_norm, round_stochastically
from model.flops import newton_schulz_flops
from model.loss import resolve_loss
from model.transformer import build
from profiles.errors import SpecError, UserError
from profiles.registry import load
from profiles.spec import RunSpec

torch.set_num_threads(1)

# Small, but with matrices of more than 4096 values: smaller ones have no 8-bit states.
NANO = [
    *("model.hidden_size=64", "model.num_hidden_layers=2", "model.num_attention_heads=2", "model.vocab_size=256"),
    *("model.qk_nope_head_dim=16", "model.qk_rope_head_dim=16", "model.v_head_dim=32", "model.kv_lora_rank=32"),
    *("model.intermediate_size=128", "context=32", "sequences=8", "micro=8", "optim.name=adamw"),
]
OPTIMIZERS = {
    "adamw": [],
    "muon": ["optim.name=muon"],
    "8-bit": ["memory.strategy=states8bit"],
}
PRECISIONS = ["fp32", "bf16", "bf16_sr"]
COMBINATIONS = list(itertools.product(OPTIMIZERS, PRECISIONS))
LR = 3e-3
TOLERANCE = 0.005  # of a loss; on 30 steps of this model they differ by at most 0.0014


def nano(optimizer: str = "adamw", precision: str = "fp32", *more: str) -> RunSpec:
    return load("cpu_demo", [*NANO, *OPTIMIZERS[optimizer], f"train.precision={precision}", *more])


def batch(step: int, sequences: int = 8) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return sequences that a small model can learn: random walks with small steps."""
    return np.cumsum(np.random.default_rng(step).integers(0, 4, (sequences, 33)), axis=1) % 256


def train(backend: TorchBackend, first: int, last: int, micro: int = 8) -> list[float]:
    """Return the losses of steps ``first`` to ``last - 1``."""
    losses = []
    for step in range(first, last):
        for at in range(0, 8, micro):
            backend.accumulate(batch(step)[at : at + micro], 8 * 32, last=at + micro == 8)
        losses.append(backend.window_totals()[0])
        backend.optimizer_step(LR, 1.0)
    return losses


def losses(optimizer: str, precision: str, steps: int) -> Tensor:
    return torch.tensor(train(TorchBackend(nano(optimizer, precision)), 0, steps))


def tensors(backend: TorchBackend) -> dict[str, Tensor]:
    return {f"{part}/{name}": tensor for part, held in backend.state_dict().items() for name, tensor in held.items()}


@pytest.mark.parametrize("more", [[], ["model.q_lora_rank=24"]])
def test_the_flops_that_are_predicted_of_muon_are_those_of_a_step(more: list[str]) -> None:
    spec = nano("muon", "fp32", *more)
    backend = TorchBackend(spec)
    backend.accumulate(batch(0), 8 * 32, last=True)
    with FlopCounterMode(display=False) as counter:
        backend.optimizer_step(LR, 1.0)
    assert counter.get_total_flops() == newton_schulz_flops(spec.model.config)


# -- each option against the plain one


def test_fused_adamw_gives_the_losses_of_plain_adamw() -> None:
    spec = nano()
    model, loss_of = build(spec.model.config, spec.train.seed), resolve_loss("plain")
    decayed = [p for p in model.parameters() if p.dim() == 2]
    scales = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": scales, "weight_decay": 0.0}]
    plain = torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.95), eps=1e-8, foreach=False)
    expected = []
    for step in range(20):
        tokens = torch.from_numpy(batch(step))
        loss = loss_of(model, tokens[:, :-1], tokens[:, 1:]) / (8 * 32)
        plain.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        plain.step()
        expected.append(float(loss.detach()))
    assert train(TorchBackend(spec), 0, 20) == pytest.approx(expected, rel=1e-5)


def orthogonal(matrix: Tensor) -> Tensor:
    """Five Newton-Schulz steps of Muon, in fp32."""
    x: Tensor = (matrix.T if matrix.shape[0] > matrix.shape[1] else matrix) / matrix.norm()
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


@pytest.mark.parametrize("shape", [(64, 64), (32, 128), (96, 24)])
def test_muon_takes_orthogonal_steps_of_the_size_of_adamws(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(1)
    weight = nn.Parameter(torch.randn(shape, generator=generator) * 0.02)
    embedding = nn.Parameter(torch.randn(8, 4, generator=generator))
    names = {"model.layers.0.mlp.up_proj.weight": weight, "model.embed_tokens.weight": embedding}
    optimizer = build_optimizer(nano("muon"), names, compiled=False)
    expected, momentum = weight.detach().clone(), torch.zeros(shape)
    plain = nn.Parameter(embedding.detach().clone())
    adamw = torch.optim.AdamW([plain], lr=LR, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    for _ in range(3):
        weight.grad = torch.randn(shape, generator=generator)
        embedding.grad = plain.grad = torch.randn(8, 4, generator=generator)
        momentum = 0.95 * momentum + 0.05 * weight.grad
        update = orthogonal(0.05 * weight.grad + 0.95 * momentum) * 0.2 * max(shape) ** 0.5
        before = expected
        expected = (1 - LR * 0.1) * expected - LR * update
        optimizer.step(LR)
        adamw.step()
        # in fp32 on a CPU: bf16, which most of them compute 40 times slower, would move the result by some 2%
        assert (weight - expected).norm() < 1e-4 * (expected - before).norm()
        torch.testing.assert_close(embedding, plain)
        expected = weight.detach().clone()


@pytest.mark.parametrize("muon_lr", [0.0, 1e-2])
@pytest.mark.parametrize(
    ("name", "parts"), [("q_proj", [32]), ("q_b_proj", [32]), ("kv_b_proj", [16, 32]), ("o_proj", [])]
)
def test_muon_steps_the_heads_of_a_projection_apart(name: str, parts: list[int], muon_lr: float) -> None:
    """The oracle orthogonalizes each head's rows, for keys and values apart, by torch's SVD."""
    spec = nano("muon", "fp32", f"optim.muon_lr={muon_lr}", "optim.lr=3e-3", "optim.weight_decay=0")
    generator = torch.Generator().manual_seed(2)
    heads, columns = spec.model.config.num_attention_heads, 40
    rows = parts * heads or [64]
    weight = nn.Parameter(torch.zeros(sum(rows), columns))
    weight.grad = torch.randn(sum(rows), columns, generator=generator)
    weight.grad[: rows[0]] *= 1e-3  # one head's gradient is small; its step is not
    build_optimizer(spec, {f"model.layers.0.self_attn.{name}.weight": weight}, compiled=False).step(LR / 2)
    rate = (muon_lr or LR) / 2
    for step, gradient in zip(weight.detach().split(rows), weight.grad.split(rows), strict=True):
        u, _, vh = torch.linalg.svd(gradient, full_matrices=False)
        size = rate * 0.2 * max(gradient.shape) ** 0.5
        singular = torch.linalg.svdvals(step) / size
        assert float(singular.min()) > 0.5 and float(singular.max()) < 1.3
        assert (step / size + u @ vh).norm() < 0.35 * (u @ vh).norm()


def test_muon_steps_the_matrices_of_the_blocks_and_adamw_the_rest() -> None:
    backend = TorchBackend(nano("muon"))
    train(backend, 0, 1)
    held = backend.state_dict()["optimizer"]
    config = backend.model.config
    with_momentum = {name.removeprefix("momentum_buffer/") for name in held if name.startswith("momentum_buffer/")}
    with_moments = {name.removeprefix("exp_avg/") for name in held if name.startswith("exp_avg/")}
    assert len(with_momentum) == 7 * config.num_hidden_layers  # q, kv_a, kv_b, o, gate, up, down
    assert {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"} <= with_moments
    assert with_momentum | with_moments == {name for name, _ in backend.model.named_parameters()}
    assert not with_momentum & with_moments


@pytest.mark.parametrize(
    ("optimizer", "precision"), [("8-bit", "fp32"), ("adamw", "bf16"), ("adamw", "bf16_sr"), ("8-bit", "bf16_sr")]
)
def test_fewer_bits_change_no_loss_by_more_than_the_tolerance(optimizer: str, precision: str) -> None:
    plain = losses("adamw", "fp32", 30)
    assert plain[-1] < 0.8 * plain[0]
    few = losses(optimizer, precision, 30)
    # Compare means: a single batch of rare tokens differs by up to 1% with stochastic rounding.
    assert few[-10:].mean().item() == pytest.approx(plain[-10:].mean().item(), rel=TOLERANCE)


@pytest.mark.parametrize("precision", ["bf16", "bf16_sr"])
def test_muon_with_fewer_bits_changes_no_loss_by_more_than_the_tolerance(precision: str) -> None:
    torch.testing.assert_close(losses("muon", precision, 20), losses("muon", "fp32", 20), rtol=TOLERANCE, atol=0)


@pytest.mark.parametrize(
    ("optimizer", "precision", "names"),
    [
        ("adamw", "fp32", ("adamw fused", "fp32", "device")),
        ("muon", "bf16", ("muon per head + adamw fused", "bf16", "device")),
        ("8-bit", "bf16_sr", ("adamw 8-bit (torchao)", "bf16_sr", "states8bit")),
    ],
)
def test_the_start_record_names_the_plan(optimizer: str, precision: str, names: tuple[str, ...]) -> None:
    plan = TorchBackend(nano(optimizer, precision)).plan
    assert (plan["optimizer"], plan["precision"], plan["strategy"]) == names


# -- checkpoints and bytes


@pytest.mark.parametrize(("optimizer", "precision"), COMBINATIONS)
def test_a_resumed_run_continues_bit_for_bit(optimizer: str, precision: str, tmp_path: Path) -> None:
    straight = TorchBackend(nano(optimizer, precision))
    train(straight, 0, 2)
    path, _ = checkpoint.save(tmp_path, 2, straight.state_dict(), {}, None)
    expected = train(straight, 2, 4)
    torch.manual_seed(99)  # the generator's state is part of the checkpoint
    resumed = TorchBackend(nano(optimizer, precision))
    resumed.load_state_dict(checkpoint.load(path)[0])
    assert train(resumed, 2, 4) == expected
    here, there = tensors(straight), tensors(resumed)
    assert here.keys() == there.keys()
    assert [name for name in here if not torch.equal(here[name], there[name])] == []


@pytest.mark.parametrize(("optimizer", "precision"), COMBINATIONS)
def test_a_state_saved_before_the_first_step_can_be_loaded(optimizer: str, precision: str) -> None:
    held = TorchBackend(nano(optimizer, precision)).state_dict()
    assert held["optimizer"].keys() == {"rng/cpu"}
    resumed = TorchBackend(nano(optimizer, precision))
    resumed.load_state_dict(held)
    assert train(resumed, 0, 1) == train(TorchBackend(nano(optimizer, precision)), 0, 1)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (("adamw", "fp32"), ("8-bit", "fp32")),
        (("8-bit", "fp32"), ("adamw", "fp32")),
        (("8-bit", "bf16_sr"), ("adamw", "fp32")),
        (("adamw", "fp32"), ("8-bit", "bf16_sr")),
        (("adamw", "bf16"), ("adamw", "bf16_sr")),
        (("muon", "bf16_sr"), ("muon", "bf16")),
    ],
)
def test_a_run_resumes_in_another_precision_or_strategy(before: tuple[str, str], after: tuple[str, str]) -> None:
    first = TorchBackend(nano(*before))
    train(first, 0, 10)
    second = TorchBackend(nano(*after))
    second.load_state_dict({part: dict(held) for part, held in first.state_dict().items()})
    assert train(second, 10, 15) == pytest.approx(train(first, 10, 15), rel=0.02)


@pytest.mark.parametrize(("before", "after", "missing"), [("adamw", "muon", "momentum_"), ("muon", "adamw", "exp_avg")])
def test_another_optimizers_state_is_refused_in_one_line(before: str, after: str, missing: str) -> None:
    first = TorchBackend(nano(before))
    train(first, 0, 1)
    with pytest.raises(UserError, match=rf"^checkpoint: has no {missing}.*optim\.name.*--init-from$"):
        TorchBackend(nano(after)).load_state_dict(first.state_dict())


@pytest.mark.parametrize(("optimizer", "precision"), COMBINATIONS)
def test_the_forecast_has_the_bytes_of_weights_gradients_and_states(optimizer: str, precision: str) -> None:
    larger = ["model.hidden_size=256", "model.intermediate_size=512", "model.kv_lora_rank=64"]
    spec = nano(optimizer, precision, *larger)
    backend = TorchBackend(spec)
    for micro in (4, 8):
        summed = 2 if precision == "bf16_sr" and micro == 8 else 4
        backend.discard_window()
        for at in range(0, 8, micro):
            backend.accumulate(batch(0)[at : at + micro], 8 * 32, last=at + micro == 8)
        gradients = sum(p.grad.nbytes for p in backend.model.parameters() if p.grad is not None)
        assert gradient_bytes(spec, summed) == gradients
    backend.window_totals()
    backend.optimizer_step(LR, 1.0)
    state = backend.state_dict()
    state_bytes = sum(tensor.nbytes for name, tensor in state["optimizer"].items() if not name.startswith("rng/"))
    assert weight_bytes(spec) == sum(t.nbytes for t in state["model"].values())
    assert optimizer_bytes(spec) == pytest.approx(state_bytes, rel=1e-2)  # small tensors and the table of codes differ


# -- bf16 weights without masters

finite = st.floats(-(2.0**127), 2.0**127, width=32)


@given(st.lists(finite, min_size=1, max_size=64), st.integers(0, 2**31))
@settings(deadline=None)
def test_rounding_gives_one_of_the_two_neighbours(values: list[float], seed: int) -> None:
    torch.manual_seed(seed)
    wide = torch.tensor(values)
    narrow = torch.empty(len(values), dtype=torch.bfloat16)
    round_stochastically(narrow, wide.clone())
    toward_zero = (wide.view(torch.int32) & -(1 << 16)).view(torch.float32)
    away = ((wide.view(torch.int32) & -(1 << 16)) + (1 << 16)).view(torch.float32)
    exact = wide == toward_zero
    assert torch.equal(narrow.float()[exact], wide[exact])
    assert torch.all((narrow == toward_zero) | (narrow == away))


@given(st.floats(2**-100, 2**100, width=32), st.booleans(), st.integers(0, 2**31))
@settings(deadline=None, max_examples=50)
def test_rounding_is_right_on_average(value: float, negative: bool, seed: int) -> None:
    torch.manual_seed(seed)
    draws = 1 << 14
    wide = torch.full((draws,), -value if negative else value)
    narrow = torch.empty(draws, dtype=torch.bfloat16)
    round_stochastically(narrow, wide.clone())
    low = float((wide[0].view(torch.int32) & -(1 << 16)).view(torch.float32))
    step = abs(low) * 2**-7  # at most the distance of two neighbours
    # six standard deviations of a mean of draws that are at most half a step from their middle
    assert abs(float(narrow.double().mean()) - float(wide[0])) <= 6 * step / 2 / draws**0.5


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "8-bit"])
def test_many_small_updates_move_a_weight_that_rounding_to_nearest_would_not(optimizer: str) -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.ones(64, 64, dtype=torch.bfloat16))
    spec = nano(optimizer, "bf16_sr", "optim.weight_decay=0")
    stepped = build_optimizer(spec, {"model.layers.0.mlp.up_proj.weight": weight}, compiled=False)
    nearest = torch.ones(64, 64, dtype=torch.bfloat16)
    for _ in range(40):
        weight.grad = torch.ones_like(weight) if optimizer != "muon" else torch.eye(64, dtype=torch.bfloat16)
        before = weight.detach().float().mean()
        stepped.step(1e-3)
        nearest -= 1e-3
        assert before - weight.detach().float().mean() > 0
    assert torch.all(nearest == 1)


def test_micro_batches_of_bf16_weights_accumulate_in_fp32() -> None:
    backend = TorchBackend(nano("adamw", "bf16_sr"))
    exact = TorchBackend(nano())
    exact.load_weights(backend.state_dict()["model"])
    worst = 0.0
    for micro in (8, 1, 8, 2):  # a live edit of micro between steps
        for model in (backend, exact):
            for at in range(0, 8, micro):
                model.accumulate(batch(0)[at : at + micro], 8 * 32, last=at + micro == 8)
        for p, q in zip(backend.model.parameters(), exact.model.parameters(), strict=True):
            assert p.grad is not None and q.grad is not None
            wide = p.dtype == torch.float32 or micro < 8
            assert p.grad.dtype == (torch.float32 if wide else torch.bfloat16)
            worst = max(worst, float((p.grad.float() - q.grad).norm() / q.grad.norm()))
        backend.discard_window()
        exact.discard_window()
    assert worst < 0.03


def test_the_norm_of_bf16_gradients_is_computed_in_fp32() -> None:
    generator = torch.Generator().manual_seed(3)
    gradients = [torch.randn(n, generator=generator).bfloat16() for n in (1000, 37, 5000)]
    exact = torch.cat([g.double() for g in gradients]).norm()
    assert float(gradient_norm(gradients)) == pytest.approx(float(exact), rel=1e-6)


# -- combinations that are refused


def test_a_rate_of_muon_without_muon_is_refused_in_one_line() -> None:
    with pytest.raises(SpecError, match=r"optim\.muon_lr: 0\.02 is for optim\.name = muon, not adamw; use that, or 0$"):
        load("cpu_demo", ["optim.name=adamw", "optim.muon_lr=0.02"])


def test_muon_with_8_bit_states_is_refused_in_one_line() -> None:
    with pytest.raises(SpecError, match=r"memory\.strategy: states8bit is for adamw only; use that, or device$"):
        load("cpu_demo", ["optim.name=muon", "memory.strategy=states8bit"])


def test_8_bit_states_without_torchao_are_refused_before_the_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    check_backend(nano("8-bit"))
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(UserError, match=r"^memory\.strategy: states8bit needs torchao.*mla-tui\[torchao\].*=device$"):
        check_backend(nano("8-bit"))


def test_nothing_but_8_bit_states_imports_torchao() -> None:
    script = "import sys, engine.train.backends.torch_backend, engine.preflight; print('torchao' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == ("False", 0), done.stderr
