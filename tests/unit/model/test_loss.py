"""Both kinds of the loss give the same number; the fused one never holds all logits."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from model.loss import CHUNK_TOKENS, LossKind, resolve_loss
from model.transformer import MLATransformer, build
from profiles.errors import SpecError
from profiles.model_config import ModelConfig
from tests.unit.model.gradients import grad_of

CONFIG = ModelConfig(
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    qk_nope_head_dim=4,
    qk_rope_head_dim=4,
    v_head_dim=8,
    kv_lora_rank=8,
    intermediate_size=24,
    vocab_size=211,
)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def batch(rows: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(0, CONFIG.vocab_size, (rows, length + 1), generator=torch.Generator().manual_seed(5))
    return ids[:, :-1], ids[:, 1:]


def loss_and_gradients(model: MLATransformer, kind: LossKind, rows: int, length: int) -> tuple[torch.Tensor, Any]:
    model.zero_grad()
    value = resolve_loss(kind)(model, *batch(rows, length))
    value.backward()
    return value.detach(), {name: grad_of(p).clone() for name, p in model.named_parameters()}


def test_loss_is_the_sum_over_tokens() -> None:
    model = build(CONFIG, 1, dtype=torch.float64)
    inputs, targets = batch(3, 9)
    logits = model(inputs)
    by_hand = -sum(logits[b, t].log_softmax(-1)[targets[b, t]] for b in range(3) for t in range(9))
    assert resolve_loss("plain")(model, inputs, targets).item() == pytest.approx(by_hand.item(), abs=1e-9)


# less than a chunk, one, two, and a shorter last chunk
@pytest.mark.parametrize(
    ("rows", "length"), [(2, 9), (4, CHUNK_TOKENS // 4), (2, CHUNK_TOKENS), (3, CHUNK_TOKENS // 2 + 5)]
)
@pytest.mark.parametrize("checkpointing", ["none", "full"])
def test_fused_equals_plain(rows: int, length: int, checkpointing: Any) -> None:
    model = build(CONFIG, 1, dtype=torch.float64, checkpointing=checkpointing)
    plain, plain_grads = loss_and_gradients(model, "plain", rows, length)
    fused, fused_grads = loss_and_gradients(model, "fused", rows, length)
    assert fused.item() == pytest.approx(plain.item(), rel=1e-12)
    for name, gradient in plain_grads.items():
        assert (gradient - fused_grads[name]).abs().max().item() <= 1e-10 * gradient.abs().max().item(), name


def test_a_tied_head_gets_the_gradients_of_both_uses() -> None:
    model = build(replace(CONFIG, tie_word_embeddings=True), 1, dtype=torch.float64)
    (plain, plain_grads), (fused, fused_grads) = (loss_and_gradients(model, kind, 2, 9) for kind in ("plain", "fused"))
    assert fused.item() == pytest.approx(plain.item(), rel=1e-12)
    for name, gradient in plain_grads.items():
        torch.testing.assert_close(fused_grads[name], gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("compiled", [False, True])
def test_in_bf16_fused_is_no_further_from_the_truth_than_plain(compiled: bool) -> None:
    inputs, targets = batch(2, 600)  # two chunks, the second shorter
    gradients = {}
    cases: list[tuple[str, LossKind, torch.dtype | None]] = [
        *(("truth", "plain", torch.float64), ("plain", "plain", None), ("fused", "fused", None)),
    ]
    for name, kind, dtype in cases:
        stream = None if dtype else torch.bfloat16
        model = build(CONFIG, 1, dtype=dtype or torch.float32, stream=stream)
        resolve_loss(kind, compiled and kind == "fused")(model, inputs, targets).backward()
        gradients[name] = grad_of(model.lm_head.weight).double()
    truth = gradients.pop("truth")
    off = {name: ((gradient - truth).norm() / truth.norm()).item() for name, gradient in gradients.items()}
    assert off["fused"] <= 1.2 * off["plain"] <= 0.02


def test_the_gradient_of_a_likely_target_is_not_rounded_away() -> None:
    """Softmax minus one at the target: at p = 0.999 the nearest bf16 numbers give 0 or 2^-8."""
    model = build(replace(CONFIG, vocab_size=2), 1, stream=torch.bfloat16)
    token = torch.tensor([[0]])
    with torch.no_grad():
        x_D = model.hidden(token)[0, 0].float()
        model.lm_head.weight.copy_(torch.stack((7 * x_D / x_D.square().sum(), torch.zeros_like(x_D))))
    resolve_loss("fused")(model, token, token).backward()
    p = 1 / (1 + math.exp(-7))
    torch.testing.assert_close(
        model.lm_head.weight.grad, torch.stack(((p - 1) * x_D, (1 - p) * x_D)), rtol=0.03, atol=0
    )


class Largest(TorchDispatchMode):
    """Records the largest number of rows of any tensor as wide as the vocabulary."""

    rows = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor) and CONFIG.vocab_size in tensor.shape:  # transposed ones too
                self.rows = max(self.rows, tensor.numel() // CONFIG.vocab_size)
        return out


@pytest.mark.parametrize(("kind", "rows"), [("plain", 3 * CHUNK_TOKENS), ("fused", CHUNK_TOKENS)])
def test_fused_never_holds_more_than_a_chunk_of_logits(kind: LossKind, rows: int) -> None:
    with Largest() as seen:
        loss_and_gradients(build(CONFIG, 1), kind, 6, CHUNK_TOKENS // 2)
    assert seen.rows == rows


@pytest.mark.parametrize("kind", ["plain", "fused"])
@pytest.mark.parametrize(
    ("dtype", "wide"), [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)]
)
def test_loss_is_never_below_float32(kind: Any, dtype: torch.dtype, wide: torch.dtype) -> None:
    assert resolve_loss(kind)(build(CONFIG, 1, dtype=dtype), *batch(2, 8)).dtype == wide


def test_gradients_of_bf16_logits_come_from_a_float32_softmax() -> None:
    model = build(CONFIG, 1, dtype=torch.bfloat16)
    inputs, targets = batch(2, 8)
    wanted = F.cross_entropy(model(inputs).float().flatten(0, 1), targets.flatten(), reduction="sum")
    assert resolve_loss("plain")(model, inputs, targets).item() == wanted.item()


@pytest.mark.parametrize("kind", ["plain", "fused"])
def test_loss_works_without_gradients(kind: Any) -> None:
    model = build(CONFIG, 1)
    inputs, targets = batch(2, 8)
    with torch.no_grad():
        value = resolve_loss(kind)(model, inputs, targets)
    assert not value.requires_grad
    assert value.item() == pytest.approx(resolve_loss("plain")(model, inputs, targets).item(), rel=1e-6)


def test_an_unknown_loss_is_refused_by_name() -> None:
    with pytest.raises(SpecError, match=r"memory\.loss: 'liger' is not one of plain, fused"):
        resolve_loss("liger")  # type: ignore[arg-type]
