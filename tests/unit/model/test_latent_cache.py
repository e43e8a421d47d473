"""Decoding from cached latents gives the numbers of the full forward, with a sixth of the memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.latent_cache import LatentCache, forward_cached
from model.transformer import MLATransformer, build
from profiles.model_config import NAMED_MODELS, ModelConfig

CONFIG = ModelConfig(
    hidden_size=24,
    num_hidden_layers=2,
    num_attention_heads=3,
    qk_nope_head_dim=6,
    qk_rope_head_dim=4,
    v_head_dim=5,
    kv_lora_rank=12,
    intermediate_size=32,
    vocab_size=40,
    initializer_range=0.2,
)
YARN = {"yarn_factor": 4.0, "yarn_original_context": 8}
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def in_pieces(model: MLATransformer, tokens_BT: Tensor, pieces: list[int]) -> Tensor:
    """Return the hidden states of the whole text, read ``pieces`` tokens at a time."""
    cache = LatentCache(model, tokens_BT.shape[1], len(tokens_BT))
    found = torch.cat([forward_cached(model, part_BT, cache) for part_BT in tokens_BT.split(pieces, 1)], 1)
    assert cache.full and cache.length == tokens_BT.shape[1]
    return found


def check(config: ModelConfig, dtype: torch.dtype, pieces: list[int], batch: int = 2) -> None:
    model = build(config, 3, dtype=dtype)
    tokens_BT = torch.randint(0, config.vocab_size, (batch, sum(pieces)), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = model.hidden(tokens_BT)
    close = TOLERANCE[dtype] * whole.abs().max().item()
    torch.testing.assert_close(in_pieces(model, tokens_BT, pieces), whole, rtol=0, atol=close)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("changes", [{}, {"q_lora_rank": 8}, YARN], ids=["plain", "q-lora", "yarn"])
@pytest.mark.parametrize("pieces", [[24], [16] + [1] * 8, [1] * 24, [9, 4, 1, 7, 3]], ids=len)
def test_prefill_and_decode_give_the_full_forward(
    dtype: torch.dtype, changes: dict[str, float], pieces: list[int]
) -> None:
    check(replace(CONFIG, **changes), dtype, pieces)  # type: ignore[arg-type]


@settings(max_examples=25, deadline=None)
@given(
    heads=st.integers(1, 4),
    nope=st.integers(1, 9),
    pairs=st.integers(1, 4),
    value=st.integers(1, 9),
    latent=st.integers(1, 16),
    query_latent=st.none() | st.integers(1, 8),
    pieces=st.lists(st.integers(1, 6), min_size=1, max_size=5),
)
def test_any_widths_match(
    heads: int, nope: int, pairs: int, value: int, latent: int, query_latent: int | None, pieces: list[int]
) -> None:
    config = replace(
        CONFIG,
        num_attention_heads=heads,
        qk_nope_head_dim=nope,
        qk_rope_head_dim=2 * pairs,
        v_head_dim=value,
        kv_lora_rank=latent,
        q_lora_rank=query_latent,
    )
    check(config, torch.float64, pieces, batch=1)


@pytest.mark.parametrize("query_latent", [None, 768], ids=["plain", "q-lora"])
def test_at_the_widths_of_mla_1b(query_latent: int | None) -> None:
    config = replace(NAMED_MODELS["mla-1b"], num_hidden_layers=2, vocab_size=64, q_lora_rank=query_latent)
    check(replace(config, intermediate_size=64), torch.float32, [30, 1, 1, 4], batch=1)


def test_mla_1b_caches_576_values_per_token_and_layer_instead_of_3584() -> None:
    config = replace(NAMED_MODELS["mla-1b"], num_hidden_layers=3, vocab_size=64, intermediate_size=64)
    model = build(config, 1, dtype=torch.bfloat16)
    context, batch = 40, 2
    cache = LatentCache(model, context, batch)
    assert cache.bytes == 576 * 2 * context * batch * 3

    unrolled: list[int] = []
    attention: Any = model.model.layers[0].self_attn
    attend = attention.attend

    def watched(q: Tensor, k: Tensor, v: Tensor, scale: float, documents: None) -> Tensor:
        unrolled.append((k.numel() + v.numel()) // (batch * context))
        out: Tensor = attend(q, k, v, scale, documents)
        return out

    attention.attend = watched
    model.hidden(torch.zeros(batch, context, dtype=torch.int64))
    assert unrolled == [3584]


def test_the_cache_holds_the_context_and_no_more() -> None:
    model = build(CONFIG, 1)
    cache = LatentCache(model, 5)
    forward_cached(model, torch.tensor([[1, 2, 3]]), cache)
    with pytest.raises(ValueError, match="6 tokens do not fit a cache of 5"):
        forward_cached(model, torch.tensor([[1, 2, 3]]), cache)
    assert cache.length == 3 and not cache.full
    cache.clear()
    first = forward_cached(model, torch.tensor([[1, 2, 3, 4, 5]]), cache)
    assert cache.full
    torch.testing.assert_close(first, model.hidden(torch.tensor([[1, 2, 3, 4, 5]])).detach())


def test_only_latents_are_cached() -> None:
    """Decoding allocates no tensor as wide as the keys of all tokens."""
    model = build(replace(CONFIG, qk_nope_head_dim=50, v_head_dim=60), 1)
    cache = LatentCache(model, 64)
    forward_cached(model, torch.zeros(1, 63, dtype=torch.int64), cache)
    widest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal widest
            out = func(*args, **(kwargs or {}))
            made = isinstance(out, Tensor) and not any(
                isinstance(arg, Tensor) and arg.untyped_storage().data_ptr() == out.untyped_storage().data_ptr()
                for arg in args
            )
            widest = max(widest, out.numel() if made else 0)
            return out

    with Watch():
        forward_cached(model, torch.zeros(1, 1, dtype=torch.int64), cache)
    assert 0 < widest < 64 * 3 * 50
