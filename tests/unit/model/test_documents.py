"""Masked documents: a packed sequence trains as its documents would apart, whatever computes it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.attention import BLOCK, AttentionKind, resolve_attention
from model.checkpointing import Checkpointing
from model.documents import NOT_COUNTED, counted_targets, document_ids
from model.loss import LossKind, resolve_loss
from model.transformer import MLATransformer, build
from profiles.model_config import ModelConfig
from tests.unit.model.gradients import grad_of

CONFIG = ModelConfig(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    qk_nope_head_dim=8,
    qk_rope_head_dim=8,
    v_head_dim=16,
    kv_lora_rank=16,
    intermediate_size=64,
    vocab_size=101,
)
END = 7
LONG = 2 * BLOCK + 50  # several blocks of blocked attention
KERNELS: list[AttentionKind] = ["sdpa", "blocked"]
LOSSES: list[LossKind] = ["plain", "fused"]
CHECKPOINTING: list[Checkpointing] = ["none", "selective", "full", "offload"]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def packed(*ends: tuple[int, ...], length: int) -> Tensor:
    """Return a sequence of ``length`` + 1 random tokens for each of ``ends``, the places of its end-of-text tokens."""
    draw = torch.Generator().manual_seed(length)
    tokens = torch.randint(END + 1, CONFIG.vocab_size, (len(ends), length + 1), generator=draw)
    for row, places in zip(tokens, ends, strict=True):
        row[list(places)] = END
    return tokens


def documents(row: Tensor) -> list[Tensor]:
    """Return the documents of a sequence that have something to predict."""
    places = [i + 1 for i, token in enumerate(row.tolist()) if token == END]
    return [part for part in torch.tensor_split(row, places) if len(part) > 1]


def model_of(document_end: int | None, **options: Any) -> MLATransformer:
    return build(CONFIG, 3, document_end=document_end, dtype=torch.float64, **options)


def apart(tokens: Tensor) -> tuple[float, dict[str, Tensor]]:
    """Return the loss and gradients of the documents of ``tokens``, each trained as a sequence of its own."""
    model, total = model_of(None), 0.0
    for row in tokens:
        for document in documents(row):
            value = resolve_loss("plain")(model, document[None, :-1], document[None, 1:])
            value.backward()
            total += value.item()
    return total, {name: grad_of(p) for name, p in model.named_parameters()}


def together(model: MLATransformer, loss: LossKind, tokens: Tensor) -> tuple[float, dict[str, Tensor]]:
    value = resolve_loss(loss)(model, tokens[:, :-1], tokens[:, 1:])
    value.backward()
    return value.item(), {name: grad_of(p) for name, p in model.named_parameters()}


def check_equal(tokens: Tensor, loss: LossKind, **options: Any) -> None:
    expected, expected_grads = apart(tokens)
    found, grads = together(model_of(END, **options), loss, tokens)
    assert found == pytest.approx(expected, rel=1e-12)
    for name, gradient in grads.items():
        torch.testing.assert_close(gradient, expected_grads[name], rtol=1e-9, atol=1e-10, msg=name)


@pytest.mark.parametrize("attention", KERNELS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("checkpointing", CHECKPOINTING)
def test_a_packed_sequence_trains_as_its_documents_apart(
    attention: AttentionKind, loss: LossKind, checkpointing: Checkpointing
) -> None:
    tokens = packed((5, 6, 40), (0, 63), (), length=64)
    check_equal(tokens, loss, attention=attention, checkpointing=checkpointing)


@pytest.mark.parametrize("attention", KERNELS)
def test_documents_longer_and_shorter_than_a_block(attention: AttentionKind) -> None:
    tokens = packed((BLOCK - 1, BLOCK + 20, 2 * BLOCK + 3), (BLOCK, LONG - 1), length=LONG)
    check_equal(tokens, "plain", attention=attention)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.frozensets(st.integers(0, 30), max_size=8), min_size=1, max_size=2), st.sampled_from(KERNELS))
def test_any_documents(places: list[frozenset[int]], attention: AttentionKind) -> None:
    check_equal(packed(*(tuple(p) for p in places), length=30), "fused", attention=attention)


def test_blocks_without_a_common_document_are_skipped() -> None:
    """Keys that no query may see are not multiplied: a NaN among them, which a mask would spread, does no harm."""
    attend, length = resolve_attention("blocked"), 3 * BLOCK
    q, k, v = (torch.randn(1, 2, length, 8, requires_grad=True) for _ in range(3))
    ids = (torch.arange(length)[None] >= BLOCK).to(torch.int32)
    with torch.no_grad():
        v[..., :BLOCK, :] = float("nan")
    out = attend(q, k, v, 0.3, ids)[..., BLOCK:, :]
    assert out.isfinite().all()
    out.sum().backward()
    assert grad_of(q)[..., BLOCK:, :].isfinite().all() and grad_of(k)[..., BLOCK:, :].isfinite().all()


@pytest.mark.parametrize("attention", [pytest.param("sdpa", marks=pytest.mark.faults), "blocked"])
def test_compiled_blocks_mask_too(attention: AttentionKind) -> None:
    tokens, compiled = packed((9, 150), (200,), length=LONG), model_of(END, attention=attention)
    for block in compiled.model.layers:
        block.compile(dynamic=False, backend="aot_eager")
    expected, expected_grads = together(model_of(END, attention=attention), "fused", tokens)
    found, grads = together(compiled, "fused", tokens)
    assert found == pytest.approx(expected, rel=1e-12)
    for name, gradient in grads.items():
        torch.testing.assert_close(gradient, expected_grads[name], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("attention", KERNELS)
def test_a_bf16_stream(attention: AttentionKind) -> None:
    tokens = packed((5, 6, 40), (0, 63), length=64)
    expected, _ = apart(tokens)
    model = build(CONFIG, 3, document_end=END, attention=attention, stream=torch.bfloat16)
    assert together(model, "fused", tokens)[0] == pytest.approx(expected, rel=1e-3)


def test_without_an_end_of_text_the_mask_changes_nothing() -> None:
    tokens = packed((), length=64)
    (plain, grads), (masked, masked_grads) = (together(model_of(end), "fused", tokens) for end in (None, END))
    assert masked == pytest.approx(plain, rel=1e-13)
    for name, gradient in masked_grads.items():
        torch.testing.assert_close(gradient, grads[name])


def test_what_counts() -> None:
    inputs, targets = torch.tensor([[1, END, END, 2]]), torch.tensor([[END, END, 2, 3]])
    assert document_ids(inputs, END).tolist() == [[0, 0, 1, 2]]
    assert counted_targets(inputs, targets, END).tolist() == [[END, NOT_COUNTED, NOT_COUNTED, 3]]
    assert counted_targets(inputs, targets, None) is targets


@pytest.mark.parametrize("loss", LOSSES)
def test_a_batch_of_ends_alone_has_no_loss_and_no_gradient(loss: LossKind) -> None:
    value, grads = together(model_of(END), loss, torch.full((2, 9), END))
    assert value == 0.0 and all(not gradient.any() for gradient in grads.values())


@pytest.mark.parametrize("attention", KERNELS)
def test_unequal_head_widths(attention: AttentionKind) -> None:
    config = dataclasses.replace(CONFIG, v_head_dim=12)
    tokens = packed((5, 40), length=64)
    model, value = build(config, 1, dtype=torch.float64), 0.0
    for document in documents(tokens[0]):
        value += resolve_loss("plain")(model, document[None, :-1], document[None, 1:]).item()
    masked = build(config, 1, dtype=torch.float64, attention=attention, document_end=END)
    assert together(masked, "plain", tokens)[0] == pytest.approx(value, rel=1e-12)
