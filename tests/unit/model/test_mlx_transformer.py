"""The MLX model has torch's logits, losses and gradients for the same weights."""

from __future__ import annotations

import dataclasses
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.loss import CHUNK_TOKENS, resolve_loss
from model.mlx_transformer import MLXTransformer, Weights, tables
from model.transformer import MLATransformer, build
from profiles.model_config import ModelConfig

torch.set_num_threads(1)

CONFIG = ModelConfig(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    qk_nope_head_dim=8,
    qk_rope_head_dim=8,
    v_head_dim=16,
    kv_lora_rank=16,
    intermediate_size=48,
    vocab_size=211,
    initializer_range=0.3,  # attention that is not the mean of all tokens
)
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "q_lora": {"q_lora_rank": 12},
    "tied": {"tie_word_embeddings": True},
    "values of another width": {"v_head_dim": 12},
    "yarn": {"yarn_factor": 4.0, "yarn_original_context": 16, "yarn_mscale": 0.7, "yarn_mscale_all_dim": 0.4},
}


def both_models(config: ModelConfig) -> tuple[MLATransformer, Weights]:
    model = build(config, 3)
    return model, {name: mx.array(p.detach().numpy()) for name, p in model.named_parameters()}


def ids(batch: int, length: int, vocabulary: int = CONFIG.vocab_size) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, vocabulary, (batch, length)).astype(np.int32)


def logits_of_both(config: ModelConfig, tokens: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], ...]:
    model, weights = both_models(config)
    with torch.no_grad():
        expected = model(torch.from_numpy(tokens).long()).numpy()
    found = MLXTransformer(config).logits(weights, mx.array(tokens), tables(config, tokens.shape[1]))
    return expected, np.array(found)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [1, 7, 130])
def test_logits_are_those_of_torch(kind: str, length: int) -> None:
    expected, found = logits_of_both(dataclasses.replace(CONFIG, **KINDS[kind]), ids(2, length))
    assert np.abs(found - expected).max() <= 1e-4


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_any_small_model_matches(data: st.DataObject) -> None:
    draw = lambda *values: data.draw(st.sampled_from(values))  # noqa: E731
    config = dataclasses.replace(
        CONFIG,
        hidden_size=draw(16, 24),
        num_hidden_layers=draw(1, 3),
        num_attention_heads=draw(1, 3),
        qk_nope_head_dim=draw(4, 10),
        qk_rope_head_dim=draw(2, 6),
        v_head_dim=draw(5, 16),
        kv_lora_rank=draw(3, 20),
        q_lora_rank=draw(None, 7),
        intermediate_size=draw(9, 32),
        tie_word_embeddings=draw(False, True),
        rms_norm_eps=draw(1e-6, 1e-3),
    )
    expected, found = logits_of_both(config, ids(draw(1, 2), draw(1, 5, 19)))
    assert np.abs(found - expected).max() <= 1e-4


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("kind", ["q_lora", "tied"])
def test_loss_and_gradients_are_those_of_torch(kind: str, chunked: bool, checkpointed: bool) -> None:
    config = dataclasses.replace(CONFIG, **KINDS[kind])
    model, weights = both_models(config)
    tokens = ids(9, 129)
    assert CHUNK_TOKENS < 9 * 128
    expected = resolve_loss("plain")(model, *(torch.from_numpy(t).long() for t in (tokens[:, :-1], tokens[:, 1:])))
    expected.backward()
    twin, both = MLXTransformer(config, checkpointed=checkpointed), (mx.array(tokens[:, :-1]), mx.array(tokens[:, 1:]))
    found, gradients = mx.value_and_grad(twin.loss)(weights, *both, tables(config, 128), chunked)
    assert float(found) == pytest.approx(expected.item(), rel=1e-5)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        truth = parameter.grad.numpy()
        assert np.linalg.norm(np.array(gradients[name]) - truth) <= 1e-4 * np.linalg.norm(truth), name


def test_a_bf16_stream_keeps_the_weights_in_fp32() -> None:
    _, weights = both_models(CONFIG)
    tokens, both = ids(2, 33), tables(CONFIG, 32)
    arrays = mx.array(tokens[:, :-1]), mx.array(tokens[:, 1:])
    exact = MLXTransformer(CONFIG).loss(weights, *arrays, both, True)
    loss, gradients = mx.value_and_grad(MLXTransformer(CONFIG, mx.bfloat16).loss)(weights, *arrays, both, True)
    assert float(loss) == pytest.approx(float(exact), rel=0.01)
    assert {gradient.dtype for gradient in gradients.values()} == {mx.float32}
