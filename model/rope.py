"""Rotary position embedding (arXiv:2104.09864), and its stretching to longer contexts with YaRN (arXiv:2309.00071).

Numbers are those of DeepSeek-V3 as ``transformers`` and ``mlx-lm`` compute it: pairs are neighbours, pair i turns by
theta^(-2i/R) radians a position. YaRN divides that speed by ``yarn_factor`` for the pairs which turn less than
``yarn_beta_slow`` times within the original context, leaves those alone which turn more than ``yarn_beta_fast`` times,
and blends between. A softmax over more tokens needs sharper scores: the softmax scale carries that where
``yarn_mscale_all_dim`` asks for it, the length of the rotated vectors carries the rest.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from profiles.model_config import ModelConfig


def rope_tables(config: ModelConfig, tokens: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the angle of every position and pair: two tensors of shape (tokens, 1, R / 2).

    They lie on the device of ``like``, in its dtype but never below float32. The angles are taken in float64: at
    position 16384 float32 angles are already off by 1e-3 radians. Made anew for each forward (a few thousand values),
    so that neither a cast of the model nor a longer context can leave a stale or rounded table behind.
    """
    speed_P = _speeds(config, like.device)
    position_T = torch.arange(tokens, dtype=torch.float64, device=like.device)
    angle_T1P = position_T[:, None, None] * speed_P
    dtype, length = torch.promote_types(like.dtype, torch.float32), _length(config)
    return (angle_T1P.cos() * length).to(dtype), (angle_T1P.sin() * length).to(dtype)


def rotate(x_BTHR: Tensor, cos_T1P: Tensor, sin_T1P: Tensor) -> tuple[Tensor, Tensor]:
    """Turn each neighbouring pair (x0, x1), (x2, x3), … by its angle; all first members, then all second ones.

    Returned apart because the caller joins them with the part without position: one copy instead of two. Queries and
    keys are permuted alike, so their products do not see it.
    """
    a_BTHP, b_BTHP = x_BTHR.view(*x_BTHR.shape[:-1], -1, 2).unbind(-1)
    first_BTHP = a_BTHP * cos_T1P - b_BTHP * sin_T1P
    second_BTHP = b_BTHP * cos_T1P + a_BTHP * sin_T1P
    return first_BTHP.to(x_BTHR.dtype), second_BTHP.to(x_BTHR.dtype)


def softmax_scale(config: ModelConfig) -> float:
    """What scores are multiplied by: (N + R)^-0.5, times YaRN's sharpening of the whole head, once for each side."""
    plain: float = config.qk_head_dim**-0.5
    return plain * _sharpening(config.yarn_factor, config.yarn_mscale_all_dim) ** 2


def _length(config: ModelConfig) -> float:
    """What cosines and sines are multiplied by: the share of the sharpening that the softmax scale does not carry."""
    factor = config.yarn_factor
    return _sharpening(factor, config.yarn_mscale) / _sharpening(factor, config.yarn_mscale_all_dim)


def _sharpening(factor: float, mscale: float) -> float:
    return 1.0 + 0.1 * mscale * math.log(factor)


def _speeds(config: ModelConfig, device: torch.device) -> Tensor:
    """Radians a position, for each pair: float64 (R / 2,)."""
    width, theta = config.qk_rope_head_dim, config.rope_theta
    pair_P = torch.arange(0, width, 2, dtype=torch.float64, device=device) / width
    speed_P = theta**-pair_P
    if config.yarn_factor == 1:
        return speed_P
    context = config.yarn_original_context
    assert context is not None  # ModelConfig.conflict

    def pair_that_turns(times: float) -> float:
        return width * math.log(context / (times * 2 * math.pi)) / (2 * math.log(theta))

    # The bounds, clamped to the width instead of the pairs, are the readers' own: weights depend on them.
    first = max(math.floor(pair_that_turns(config.yarn_beta_fast)), 0)
    last = min(math.ceil(pair_that_turns(config.yarn_beta_slow)), width - 1)
    index_P = torch.arange(width // 2, dtype=torch.float64, device=device)
    stretched_P = ((index_P - first) / ((last - first) or 1)).clamp(0, 1)
    return speed_P * (1 - stretched_P) + speed_P / config.yarn_factor * stretched_P
