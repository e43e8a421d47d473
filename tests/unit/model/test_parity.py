"""The model against transformers' DeepSeek-V3 on the same weights: logits and every gradient."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3RMSNorm

from model.hf import to_hf_config
from model.transformer import MLATransformer, build
from profiles.model_config import NAMED_MODELS, ModelConfig

TINY = NAMED_MODELS["mla-tiny"]
SMALL = ModelConfig(
    hidden_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    qk_nope_head_dim=12,
    qk_rope_head_dim=8,
    v_head_dim=16,
    kv_lora_rank=24,
    intermediate_size=80,
    vocab_size=97,
    q_lora_rank=20,
    # not DeepSeek's value: the norms of the latents must not follow it
    rms_norm_eps=1e-3,
    rope_theta=500.0,
)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


class ExactNorm(nn.Module):
    """transformers' norm without its cast to float32, so that float64 stays float64 all the way."""

    def __init__(self, theirs: DeepseekV3RMSNorm) -> None:
        super().__init__()
        self.weight, self.eps = theirs.weight, theirs.variance_epsilon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))


class ExactRope(nn.Module):
    """transformers' rope tables without their cast to float32."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.width, self.theta = config.qk_rope_head_dim, config.rope_theta

    def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pairs = torch.tensor([self.theta ** (-2 * i / self.width) for i in range(self.width // 2)], dtype=torch.float64)
        angle = position_ids[..., None].double() * torch.cat((pairs, pairs))
        return angle.cos(), angle.sin()


def random_model(config: ModelConfig, seed: int, dtype: torch.dtype) -> MLATransformer:
    """Weights far from a fresh model's, so that attention is not flat and no norm scale is 1."""
    model = build(config, seed, dtype=dtype)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.uniform_(0.5, 1.5, generator=generator)
            else:
                parameter.normal_(0.0, parameter.shape[1] ** -0.5, generator=generator)
    return model


def reference_of(model: MLATransformer, context: int) -> DeepseekV3ForCausalLM:
    config, dtype = model.config, model.lm_head.weight.dtype
    theirs = DeepseekV3Config(**to_hf_config(config, context), attn_implementation="sdpa")
    reference = DeepseekV3ForCausalLM(theirs).to(dtype)
    reference.load_state_dict(model.state_dict(), strict=True)
    if dtype == torch.float64:
        reference.model.rotary_emb = ExactRope(config)
        for name, module in list(reference.named_modules()):
            if isinstance(module, DeepseekV3RMSNorm):
                reference.set_submodule(name, ExactNorm(module))
    return reference


def assert_same(config: ModelConfig, seed: int, batch: int, tokens: int, dtype: torch.dtype) -> None:
    """Logits and gradients of the summed cross entropy agree to 1e-9 (float64) or 1e-5 of their greatest value."""
    model = random_model(config, seed, dtype)
    reference = reference_of(model, tokens)
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, config.vocab_size, (batch, tokens + 1), generator=generator)

    ours = model(ids[:, :-1])
    theirs = reference(input_ids=ids[:, :-1], use_cache=False).logits
    for logits in (ours, theirs):
        F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="sum").backward()

    def close(a: torch.Tensor, b: torch.Tensor, what: str) -> None:
        allowed = 1e-9 if dtype == torch.float64 else 1e-5 * b.abs().max().item()
        assert (a - b).abs().max().item() <= allowed, what

    close(ours, theirs, "logits")
    expected = dict(reference.named_parameters())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and expected[name].grad is not None, name
        close(parameter.grad, expected[name].grad, f"gradient of {name}")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("tokens", [1, 7, 64])
@pytest.mark.parametrize("q_lora_rank", [None, 20])
def test_small_model_matches(q_lora_rank: int | None, tokens: int, dtype: torch.dtype) -> None:
    assert_same(dataclasses.replace(SMALL, q_lora_rank=q_lora_rank), seed=1, batch=2, tokens=tokens, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("tokens", [64, 512])
def test_tiny_model_matches(tokens: int, dtype: torch.dtype) -> None:
    assert_same(TINY, seed=2, batch=1, tokens=tokens, dtype=dtype)


configs = st.builds(
    ModelConfig,
    hidden_size=st.integers(1, 40),
    num_hidden_layers=st.integers(1, 3),
    num_attention_heads=st.integers(1, 4),
    qk_nope_head_dim=st.integers(1, 12),
    qk_rope_head_dim=st.integers(1, 6).map(lambda pairs: 2 * pairs),
    v_head_dim=st.integers(1, 16),
    kv_lora_rank=st.integers(1, 24),
    intermediate_size=st.integers(1, 48),
    vocab_size=st.integers(2, 60),
    q_lora_rank=st.none() | st.integers(1, 24),
    rms_norm_eps=st.sampled_from([1e-6, 1e-5, 1e-2]),
    rope_theta=st.sampled_from([100.0, 10000.0, 1e6]),
    tie_word_embeddings=st.booleans(),
)


@settings(max_examples=15, deadline=None)
@given(config=configs, batch=st.integers(1, 3), tokens=st.integers(1, 33), seed=st.integers(0, 2**31))
def test_any_shape_matches(config: ModelConfig, batch: int, tokens: int, seed: int) -> None:
    assert_same(config, seed, batch, tokens, torch.float64)


def test_long_positions_match_in_float64() -> None:
    """One angle too coarse shows only far from the start: compare the last tokens of a long window."""
    model = random_model(dataclasses.replace(SMALL, num_hidden_layers=1), 3, torch.float64)
    reference = reference_of(model, 2048)
    ids = torch.randint(0, SMALL.vocab_size, (1, 2048), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        ours, theirs = model(ids)[:, -8:], reference(input_ids=ids, use_cache=False, logits_to_keep=8).logits
    assert (ours - theirs).abs().max().item() <= 1e-9
