"""Compiled blocks give the numbers of eager ones, for every attention, kind of checkpointing and stream.

The code generator takes most of the time and does not depend on our options. Most tests therefore stop before it, after
the parts that do: tracing, the compiler's own autograd, and its split into what is saved and what is recomputed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from model import checkpointing
from model.attention import BLOCK, AttentionKind
from model.checkpointing import Checkpointing
from model.loss import Loss, resolve_loss
from model.transformer import MLATransformer, build
from profiles.model_config import ModelConfig

CONFIG = ModelConfig(
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    qk_nope_head_dim=4,
    qk_rope_head_dim=4,
    v_head_dim=8,
    kv_lora_rank=8,
    intermediate_size=24,
    vocab_size=211,
    q_lora_rank=12,
    initializer_range=0.3,  # attention that is not the mean of all tokens
)
LENGTH = BLOCK + 22
TRACED = "aot_eager_decomp_partition"  # all of the compiler but its code generator
GENERATED = "inductor"
KINDS: list[Checkpointing] = ["none", "selective", "full", "offload"]
ATTENTIONS: list[AttentionKind] = ["sdpa", "blocked"]
Gradients = dict[str, Tensor]


@pytest.fixture(autouse=True)
def one_thread_and_nothing_compiled_before() -> Iterator[None]:
    torch.set_num_threads(1)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def tokens(batch: int, length: int) -> Tensor:
    return torch.randint(0, CONFIG.vocab_size, (batch, length), generator=torch.Generator().manual_seed(0))


def compiled(backend: str, **options: Any) -> MLATransformer:
    model = build(CONFIG, 3, **options)
    for block in model.model.layers:
        block.compile(dynamic=False, backend=backend, fullgraph=True)  # raises instead of falling back to eager
    return model


def loss_and_gradients(model: MLATransformer, loss: Loss, ids: Tensor) -> tuple[float, Gradients]:
    model.zero_grad()
    value = loss(model, ids[:, :-1], ids[:, 1:])
    value.backward()
    return value.item(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def relative_error(found: Gradients, truth: Gradients) -> float:
    """Return the distance of all gradients together, relative to the true ones."""
    apart = sum((found[name].double() - gradient).square().sum() for name, gradient in truth.items())
    whole = sum(gradient.square().sum() for gradient in truth.values())
    return math.sqrt(apart / whole)


def check_in_float32(backend: str, loss: Loss, options: dict[str, Any]) -> None:
    ids = tokens(2, LENGTH + 1)
    eager, eager_grads = loss_and_gradients(build(CONFIG, 3, **options), resolve_loss("fused"), ids)
    found, found_grads = loss_and_gradients(compiled(backend, **options), loss, ids)
    assert found == pytest.approx(eager, rel=1e-6)
    assert found_grads.keys() == eager_grads.keys()
    for name, gradient in eager_grads.items():
        assert (found_grads[name] - gradient).norm() <= 5e-6 * gradient.norm(), name


def check_with_a_bf16_stream(backend: str, loss: Loss, options: dict[str, Any]) -> None:
    """The compiler leaves out roundings between operations: no further from the truth, and not the same numbers."""
    ids, options = tokens(2, LENGTH + 1), {**options, "stream": torch.bfloat16}
    eager, eager_grads = loss_and_gradients(build(CONFIG, 3, **options), resolve_loss("fused"), ids)
    found, found_grads = loss_and_gradients(compiled(backend, **options), loss, ids)
    truth, true_grads = loss_and_gradients(build(CONFIG, 3, dtype=torch.float64), resolve_loss("plain"), ids)
    assert found == pytest.approx(truth, rel=1e-3) and found == pytest.approx(eager, rel=1e-3)
    assert found_grads.keys() == true_grads.keys()
    assert all(gradient.dtype == torch.float32 for gradient in found_grads.values())
    assert relative_error(found_grads, true_grads) <= 1.2 * relative_error(eager_grads, true_grads) <= 0.1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_traced_blocks_equal_eager_ones(attention: AttentionKind, kind: Checkpointing) -> None:
    check_in_float32(TRACED, resolve_loss("fused"), {"attention": attention, "checkpointing": kind})


@pytest.mark.parametrize(
    ("attention", "kind"), [("sdpa", "none"), ("sdpa", "full"), ("blocked", "selective"), ("blocked", "offload")]
)
def test_traced_blocks_with_a_bf16_stream(attention: AttentionKind, kind: Checkpointing) -> None:
    check_with_a_bf16_stream(TRACED, resolve_loss("fused"), {"attention": attention, "checkpointing": kind})


LONG = pytest.mark.faults  # slow: 10 seconds each, 40 with an empty compiler cache


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[] if kind == "selective" else LONG) for kind in KINDS])
@pytest.mark.parametrize("attention", ["sdpa", pytest.param("blocked", marks=LONG)])
def test_generated_blocks_and_loss_equal_eager_ones(attention: AttentionKind, kind: Checkpointing) -> None:
    check_in_float32(GENERATED, resolve_loss("fused", compiled=True), {"attention": attention, "checkpointing": kind})


@LONG
@pytest.mark.parametrize(("attention", "kind"), [("blocked", "full"), ("sdpa", "offload")])
def test_generated_blocks_and_loss_with_a_bf16_stream(attention: AttentionKind, kind: Checkpointing) -> None:
    options = {"attention": attention, "checkpointing": kind}
    check_with_a_bf16_stream(GENERATED, resolve_loss("fused", compiled=True), options)


def test_traced_tiles_equal_untiled_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    ids, loss = tokens(2, 41), resolve_loss("fused")
    plain, plain_grads = loss_and_gradients(build(CONFIG, 3), loss, ids)
    monkeypatch.setattr(checkpointing, "TILE_TOKENS", 16)
    found, found_grads = loss_and_gradients(compiled(TRACED, checkpointing="offload"), loss, ids)
    assert found == pytest.approx(plain, rel=1e-6)
    for name, gradient in plain_grads.items():
        assert (found_grads[name] - gradient).norm() <= 5e-6 * gradient.norm(), name


def test_one_model_runs_several_shapes_and_validation_in_between() -> None:
    options: dict[str, Any] = {"attention": "blocked", "checkpointing": "selective"}
    eager, traced, loss = build(CONFIG, 3, **options), compiled(TRACED, **options), resolve_loss("fused")
    for batch, length, train in [(2, 130, True), (1, 37, True), (2, 130, False), (3, 1, False), (2, 130, True)]:
        ids = tokens(batch, length + 1)
        if not train:
            with torch.no_grad():
                found, wanted = (loss(model, ids[:, :-1], ids[:, 1:]).item() for model in (traced, eager))
            assert found == pytest.approx(wanted, rel=1e-6)
            continue
        (found, found_grads), (wanted, wanted_grads) = (loss_and_gradients(m, loss, ids) for m in (traced, eager))
        assert found == pytest.approx(wanted, rel=1e-6)
        assert relative_error(found_grads, wanted_grads) <= 5e-6


def test_compiled_each_kind_saves_less_than_the_one_before() -> None:
    saved = []
    for kind in KINDS[:3]:
        torch._dynamo.reset()
        model = compiled(TRACED, checkpointing=kind)
        storages: dict[int, Any] = {}

        def pack(saved: Tensor, storages: dict[int, Any] = storages) -> Tensor:
            storages[saved.untyped_storage().data_ptr()] = saved.untyped_storage()
            return saved

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
            model.hidden(tokens(2, LENGTH))
        weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        saved.append(sum(s.nbytes() for pointer, s in storages.items() if pointer not in weights))
    none, selective, full = saved
    assert full < 0.5 * selective and selective < 0.8 * none
