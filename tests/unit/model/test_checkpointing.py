"""Every kind of activation checkpointing gives the same numbers; they differ in what is saved and recomputed."""

from __future__ import annotations

import dataclasses
import gc
import weakref
from collections import Counter
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from engine.memory.block import TILE_TOKENS
from engine.memory.head import CHUNK_TOKENS
from model import checkpointing, loss
from model.checkpointing import Checkpointing, tiled
from model.loss import resolve_loss
from model.stream_offload import StreamOffload
from model.transformer import MLATransformer, build
from profiles.errors import SpecError
from profiles.model_config import ModelConfig

CONFIG = ModelConfig(
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=2,
    qk_nope_head_dim=8,
    qk_rope_head_dim=8,
    v_head_dim=16,
    kv_lora_rank=16,
    intermediate_size=64,
    vocab_size=101,
    q_lora_rank=12,
)
KINDS: list[Checkpointing] = ["none", "selective", "full", "offload"]
MATMULS_OF_A_BLOCK = 8  # q_a, q_b, kv_a, kv_b, o, gate, up, down


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def tokens(batch: int, length: int) -> Tensor:
    return torch.randint(0, CONFIG.vocab_size, (batch, length), generator=torch.Generator().manual_seed(0))


def loss_and_gradients(kind: Checkpointing, length: int = 18, **options: Any) -> tuple[Tensor, dict[str, Tensor]]:
    model, ids = build(CONFIG, 3, checkpointing=kind, **options), tokens(2, length + 1)
    value = resolve_loss("fused")(model, ids[:, :-1], ids[:, 1:])
    value.backward()
    return value.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", KINDS[1:3])
@pytest.mark.parametrize("options", [{}, {"stream": torch.bfloat16}, {"attention": "blocked"}], ids=str)
def test_all_kinds_give_the_same_numbers(kind: Checkpointing, options: dict[str, Any]) -> None:
    plain, plain_grads = loss_and_gradients("none", **options)
    found, found_grads = loss_and_gradients(kind, **options)
    assert torch.equal(plain, found)
    assert plain_grads.keys() == found_grads.keys()
    assert all(torch.equal(gradient, found_grads[name]) for name, gradient in plain_grads.items())


def test_the_forecast_uses_the_same_tile_and_chunk_sizes() -> None:
    assert (TILE_TOKENS, CHUNK_TOKENS) == (checkpointing.TILE_TOKENS, loss.CHUNK_TOKENS)


@pytest.mark.parametrize("tile", [checkpointing.TILE_TOKENS, 16])
def test_offload_and_tiles_change_only_rounding(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, plain_grads = loss_and_gradients("none", 50, dtype=torch.float64)
    monkeypatch.setattr(checkpointing, "TILE_TOKENS", tile)
    found, found_grads = loss_and_gradients("offload", 50, dtype=torch.float64)
    torch.testing.assert_close(found, plain, rtol=1e-13, atol=0)
    for name, gradient in plain_grads.items():
        torch.testing.assert_close(found_grads[name], gradient, rtol=1e-10, atol=1e-14, msg=name)


def test_a_tiled_layer_runs_on_one_tile_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpointing, "TILE_TOKENS", 16)
    seen = []

    def layer(x: Tensor) -> Tensor:
        seen.append(x.shape[1])
        return x.square()

    x = torch.randn(2, 50, 4, requires_grad=True)
    torch.testing.assert_close(tiled(layer, x), x.square())
    assert seen == [16, 16, 16, 2]


class Counted(TorchDispatchMode):
    """Counts how often each operation ran."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.ran[str(func)] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("kind", "matmuls", "attentions", "gates"),
    [("none", 0, 0, 0), ("selective", 0, 0, 1), ("full", MATMULS_OF_A_BLOCK - 1, 1, 1)],
)
def test_operations_that_are_recomputed(kind: Checkpointing, matmuls: int, attentions: int, gates: int) -> None:
    """Counted per block in backward, which itself needs two products per projection; down is not recomputed."""
    model = build(CONFIG, 3, checkpointing=kind)
    x = model.hidden(tokens(2, 18)).sum()
    with Counted() as backward:
        x.backward()
    blocks = CONFIG.num_hidden_layers
    own = 2 * MATMULS_OF_A_BLOCK * blocks
    assert backward.ran["aten.mm.default"] == own + matmuls * blocks
    assert backward.ran["aten._scaled_dot_product_flash_attention_for_cpu.default"] == attentions * blocks
    assert backward.ran["aten.silu.default"] == gates * blocks


def saved_bytes(kind: Checkpointing) -> int:
    """Return the bytes allocated in forward that are still live before backward, without parameters."""
    model, ids = build(dataclasses.replace(CONFIG, num_hidden_layers=8), 3, checkpointing=kind), tokens(4, 64)

    def alive() -> dict[int, int]:
        gc.collect()
        found = {}
        for thing in gc.get_objects():
            if type(thing) is Tensor or type(thing) is torch.nn.Parameter:
                found[thing.untyped_storage().data_ptr()] = thing.untyped_storage().nbytes()
        return found

    before = alive()
    kept: list[Tensor] = []  # saved for backward, which the collector does not show

    def pack(saved: Tensor) -> Tensor:
        kept.append(saved)
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
        out = model.hidden(ids)
    after = alive()
    del out
    return sum(size for pointer, size in after.items() if pointer not in before)


def test_each_kind_saves_less_than_the_one_before() -> None:
    none, selective, full = (saved_bytes(kind) for kind in KINDS[:3])
    assert full < selective < none
    stream = 4 * 64 * CONFIG.hidden_size * 4
    assert full < 8 * stream * 1.5


@pytest.mark.parametrize("compiled", [False, True])
def test_the_stream_of_every_block_is_offloaded(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU the host copy is a copy as well."""
    moved = []
    copy = Tensor.copy_

    def watched(self: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
        if non_blocking:
            moved.append(tuple(source.shape))
        return copy(self, source, non_blocking)

    monkeypatch.setattr(Tensor, "copy_", watched)
    model: MLATransformer = build(CONFIG, 3, checkpointing="offload")
    for block in model.model.layers if compiled else ():
        block.compile(dynamic=False, backend="aot_eager_decomp_partition")
    model.hidden(tokens(2, 18)).sum().backward()
    assert moved == [(2, 18, CONFIG.hidden_size)] * CONFIG.num_hidden_layers


def test_an_offloaded_tensor_is_freed_on_the_device() -> None:
    """The graph outlives the block, so it must reference only the host copy."""
    layer = partial(torch.utils.checkpoint.checkpoint, torch.square, use_reentrant=False)
    stream = torch.randn(3, 4, requires_grad=True) * 2
    storage = weakref.ref(stream.untyped_storage())
    with StreamOffload().forward() as around_block, around_block(stream):
        out = layer(stream)
    del stream
    gc.collect()
    assert storage() is None
    out.sum().backward()


def test_only_the_stream_is_offloaded_and_it_comes_back_unchanged() -> None:
    stream, other = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4)
    with StreamOffload().forward() as around_block, around_block(stream):
        out = (stream * other).sum() + stream.square().sum()
    with torch.no_grad():
        expected = other + 2 * stream
    out.backward()
    torch.testing.assert_close(stream.grad, expected)


def test_an_unknown_kind_is_refused_by_name() -> None:
    with pytest.raises(SpecError, match=r"^memory\.checkpointing: 'some' is not one of none, selective, full"):
        MLATransformer(CONFIG, "some")  # type: ignore[arg-type]
