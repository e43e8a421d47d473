"""The model has the logits and gradients of transformers' DeepSeek-V3 for the same weights."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

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
from tests.unit.model.gradients import grad_of

TINY = NAMED_MODELS["mla-tiny"]
# Four layers of mla-1b, for a test that ends. Vocabulary and feed-forward are cut, which see one token at a time and
# are matrix products whatever their width; everything of attention has its whole size.
SLICE = dataclasses.replace(NAMED_MODELS["mla-1b"], num_hidden_layers=4, vocab_size=512, intermediate_size=128)
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
STRETCHED = dataclasses.replace(SMALL, yarn_factor=4.0, yarn_original_context=48)
# Beyond it the float32 angles of transformers (off by 1e-4 radians at position 2048) move its own float32 logits by
# more than the tolerance: 1.2e-5 of their greatest for mla-tiny at 2048 tokens. There it gets exact angles.
LONGEST_FLOAT32_ANGLES = 512


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
    """transformers' rope tables without their cast to float32, by the formulas of RoPE and YaRN, pair by pair."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, theta = config.qk_rope_head_dim, config.rope_theta
        speeds = [theta ** (-2 * i / width) for i in range(width // 2)]
        self.length = 1.0
        if config.yarn_factor > 1:
            speeds = [speed * self.slowing(config, i) for i, speed in enumerate(speeds)]
            logarithm = math.log(config.yarn_factor)
            self.length = (1 + 0.1 * config.yarn_mscale * logarithm) / (
                1 + 0.1 * config.yarn_mscale_all_dim * logarithm
            )
        self.speeds = torch.tensor(speeds, dtype=torch.float64)

    @staticmethod
    def slowing(config: ModelConfig, pair: int) -> float:
        """By what YaRN multiplies the speed of a pair: 1 for the fast ones, 1 / factor for the slow ones."""
        width, theta, context = config.qk_rope_head_dim, config.rope_theta, config.yarn_original_context
        assert context is not None
        limits = (
            width / 2 * math.log(context / (2 * math.pi * rounds), theta)
            for rounds in (config.yarn_beta_fast, config.yarn_beta_slow)
        )
        first, last = (rounding(limit) for rounding, limit in zip((math.floor, math.ceil), limits, strict=True))
        first, last = max(first, 0), min(last, width - 1)
        slow = (pair > first) if first == last else min(max((pair - first) / (last - first), 0.0), 1.0)
        return slow / config.yarn_factor + (1 - slow)

    def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        angle = position_ids[..., None].double() * torch.cat((self.speeds, self.speeds))
        return (angle.cos() * self.length).to(x.dtype), (angle.sin() * self.length).to(x.dtype)


def random_model(config: ModelConfig, seed: int, dtype: torch.dtype) -> MLATransformer:
    """Return a model with weights far from the initial ones: attention is not uniform and no norm scale is 1."""
    model = build(config, seed, dtype=dtype)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.uniform_(0.5, 1.5, generator=generator)
            else:
                parameter.normal_(0.0, parameter.shape[1] ** -0.5, generator=generator)
    return model


def reference_of(model: MLATransformer, context: int) -> Any:
    config, dtype = model.config, model.lm_head.weight.dtype
    theirs = DeepseekV3Config.from_dict({**to_hf_config(config, context), "attn_implementation": "sdpa"})
    reference: Any = DeepseekV3ForCausalLM(theirs)
    reference.to(dtype)
    reference.load_state_dict(model.state_dict(), strict=True)
    if dtype == torch.float64 or context > LONGEST_FLOAT32_ANGLES:
        reference.model.rotary_emb = ExactRope(config)
    if dtype == torch.float64:
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
        close(grad_of(parameter), grad_of(expected[name]), f"gradient of {name}")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("tokens", [1, 7, 64])
@pytest.mark.parametrize("q_lora_rank", [None, 20])
def test_small_model_matches(q_lora_rank: int | None, tokens: int, dtype: torch.dtype) -> None:
    assert_same(dataclasses.replace(SMALL, q_lora_rank=q_lora_rank), seed=1, batch=2, tokens=tokens, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("tokens", [1, 7, 512, 2048])
@pytest.mark.parametrize("q_lora_rank", [None, 96])
def test_tiny_model_matches(q_lora_rank: int | None, tokens: int, dtype: torch.dtype) -> None:
    assert_same(dataclasses.replace(TINY, q_lora_rank=q_lora_rank), seed=2, batch=1, tokens=tokens, dtype=dtype)


@pytest.mark.parametrize(
    ("q_lora_rank", "tokens", "dtype"),
    [
        *itertools.product((None, 448), (1, 7), (torch.float64, torch.float32)),
        *((None, 512, torch.float64), (448, 512, torch.float32)),
        *(
            pytest.param(*rest, marks=pytest.mark.faults)
            for rest in ((None, 512, torch.float32), (448, 512, torch.float64))
        ),
    ],
    ids=lambda value: str(value).removeprefix("torch."),
)
def test_slice_of_mla_1b_matches(q_lora_rank: int | None, tokens: int, dtype: torch.dtype) -> None:
    assert_same(dataclasses.replace(SLICE, q_lora_rank=q_lora_rank), seed=4, batch=1, tokens=tokens, dtype=dtype)


def test_slice_of_mla_1b_matches_with_its_full_feed_forward() -> None:
    assert_same(dataclasses.replace(SLICE, intermediate_size=4608), seed=4, batch=1, tokens=7, dtype=torch.float32)


@pytest.mark.faults  # slow: more than a minute in float64
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("q_lora_rank", "dtype"), [(None, torch.float64), (448, torch.float32)])
def test_slice_of_mla_1b_matches_at_its_full_context(q_lora_rank: int | None, dtype: torch.dtype) -> None:
    assert_same(dataclasses.replace(SLICE, q_lora_rank=q_lora_rank), seed=4, batch=1, tokens=2048, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("tokens", [7, 48, 192, 300])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"q_lora_rank": None, "yarn_mscale_all_dim": 0.0},
        {"yarn_mscale": 0.7, "yarn_mscale_all_dim": 1.3, "yarn_beta_fast": 16.0, "yarn_beta_slow": 2.0},
        {"rope_theta": 20_000.0, "yarn_factor": 32.0, "yarn_original_context": 4096},
    ],
    ids=["deepseek", "paper", "mixed", "theta"],
)
def test_yarn_matches(changes: dict[str, Any], tokens: int, dtype: torch.dtype) -> None:
    """Below, at and above the original context of 48 tokens, and beyond the scaled context."""
    assert_same(dataclasses.replace(STRETCHED, **changes), seed=5, batch=1, tokens=tokens, dtype=dtype)


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
    yarn_factor=st.sampled_from([1.0, 1.5, 40.0]),
    yarn_original_context=st.integers(1, 64),
    yarn_mscale_all_dim=st.sampled_from([0.0, 0.7, 1.0]),
)


@settings(max_examples=15, deadline=None)
@given(config=configs, batch=st.integers(1, 3), tokens=st.integers(1, 33), seed=st.integers(0, 2**31))
def test_any_shape_matches(config: ModelConfig, batch: int, tokens: int, seed: int) -> None:
    assert_same(config, seed, batch, tokens, torch.float64)


def test_long_positions_match_in_float64() -> None:
    """An imprecise angle shows only far from the start, so compare the last tokens of a long window."""
    model = random_model(dataclasses.replace(SMALL, num_hidden_layers=1), 3, torch.float64)
    reference = reference_of(model, 2048)
    ids = torch.randint(0, SMALL.vocab_size, (1, 2048), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        ours, theirs = model(ids)[:, -8:], reference(input_ids=ids, use_cache=False, logits_to_keep=8).logits
    assert (ours - theirs).abs().max().item() <= 1e-9
