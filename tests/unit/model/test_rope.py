"""Rope tables and softmax scale, with and without YaRN, are those of transformers and of the papers."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DeepseekV3Config
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Attention, DeepseekV3RotaryEmbedding

from model.hf import to_hf_config
from model.rope import rope_tables, softmax_scale
from profiles.model_config import NAMED_MODELS, ModelConfig

TINY = NAMED_MODELS["mla-tiny"]
YARN = dataclasses.replace(TINY, yarn_factor=8.0, yarn_original_context=2048)
WIDE = torch.zeros((), dtype=torch.float64)


def reference(config: ModelConfig, context: int = 16384) -> DeepseekV3Config:
    return DeepseekV3Config(**to_hf_config(config, context))


def frequencies_and_length(config: ModelConfig) -> torch.Tensor:
    """Return the radians per position of each pair, and the vector length, computed from the tables."""
    cos, sin = (table[1, 0] for table in rope_tables(config, 2, WIDE))
    return torch.complex(cos, sin)


yarns = st.builds(
    lambda theta, pairs, factor, original, fast, slow, mscales: dataclasses.replace(
        TINY,
        qk_rope_head_dim=2 * pairs,
        rope_theta=theta,
        yarn_factor=factor,
        yarn_original_context=original,
        yarn_beta_fast=fast,
        yarn_beta_slow=slow,
        yarn_mscale=mscales[0],
        yarn_mscale_all_dim=mscales[1],
    ),
    theta=st.floats(2.0, 1e7),
    pairs=st.integers(1, 64),
    factor=st.floats(1.0, 128.0),
    original=st.integers(1, 1 << 17),
    fast=st.floats(8.0, 64.0),
    slow=st.floats(0.5, 4.0),
    mscales=st.just((1.0, 0.0)) | st.tuples(st.floats(0.1, 2.0), st.floats(0.1, 2.0)),
)


@settings(deadline=None)
@given(config=yarns)
def test_frequency_length_and_scale_are_those_of_transformers(config: ModelConfig) -> None:
    theirs = DeepseekV3RotaryEmbedding(reference(config))
    speed = theirs.inv_freq.double()
    wanted = theirs.attention_scaling * torch.complex(speed.cos(), speed.sin())
    # theirs are float32 numbers of at most one radian
    assert (frequencies_and_length(config) - wanted).abs().max().item() <= 2e-6 * theirs.attention_scaling
    assert softmax_scale(config) == pytest.approx(DeepseekV3Attention(reference(config), 0).scaling, rel=1e-12)


def test_without_yarn_nothing_is_scaled() -> None:
    ignored = dataclasses.replace(TINY, yarn_original_context=2048, yarn_mscale=0.5, yarn_beta_fast=2.0)
    for config in (TINY, ignored):
        speed = torch.tensor([1e4 ** (-2 * i / 32) for i in range(16)], dtype=torch.float64)
        assert (frequencies_and_length(config) - torch.complex(speed.cos(), speed.sin())).abs().max().item() <= 1e-15
        assert softmax_scale(config) == 64**-0.5


def test_fast_pairs_keep_their_frequency_and_slow_ones_are_divided_by_the_factor() -> None:
    plain, stretched = frequencies_and_length(TINY).angle(), frequencies_and_length(YARN).angle()
    rounds = 2048 * plain / (2 * math.pi)
    ratio = plain / stretched
    # the interpolation ends at whole pairs, so the pairs next to the two limits belong to it
    assert ratio[rounds > 64].tolist() == pytest.approx([1.0] * int((rounds > 64).sum()), rel=1e-9)
    assert ratio[rounds < 0.5].tolist() == pytest.approx([8.0] * int((rounds < 0.5).sum()), rel=1e-9)
    assert (ratio.diff() >= -1e-9).all()
    assert (rounds < 0.5).any() and (rounds > 64).any()


def test_mscale_is_the_papers_wherever_it_is_applied() -> None:
    """A score of rotated parts is scaled by (0.1 ln s + 1)^2, through the rotated part or through the whole head."""
    wanted = (0.1 * math.log(8.0) + 1) ** 2
    for all_dim in (0.0, 1.0):
        config = dataclasses.replace(YARN, yarn_mscale_all_dim=all_dim)
        length = frequencies_and_length(config).abs()
        assert (length**2 * softmax_scale(config) / softmax_scale(TINY)).tolist() == pytest.approx([wanted] * 16)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("config", [TINY, YARN])
def test_tables_are_float32_or_wider_and_longer_ones_begin_alike(config: ModelConfig, dtype: torch.dtype) -> None:
    like = torch.zeros((), dtype=dtype)
    for short, long in zip(rope_tables(config, 5, like), rope_tables(config, 300, like), strict=True):
        assert short.dtype == long.dtype == torch.promote_types(dtype, torch.float32)
        assert (short.shape, long.shape) == ((5, 1, 16), (300, 1, 16))
        assert torch.equal(short, long[:5])
