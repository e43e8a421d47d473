"""Implements rotary position embedding (arXiv:2104.09864) and YaRN for longer contexts (arXiv:2309.00071).

The numbers are those of DeepSeek-V3 in ``transformers`` and ``mlx-lm``: pairs are neighbours, and pair i rotates by
theta^(-2i/R) radians per position. YaRN divides that frequency by ``yarn_factor`` for pairs that rotate less than
``yarn_beta_slow`` times within the original context, keeps it for pairs that rotate more than ``yarn_beta_fast`` times,
and interpolates between. A softmax over more tokens needs sharper scores (mscale): the softmax scale applies the part
given by ``yarn_mscale_all_dim``, the length of the rotated vectors the rest.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from profiles.model_config import ModelConfig


def rope_tables(config: ModelConfig, tokens: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of the angle of every position and pair: two tensors of shape (tokens, 1, R / 2).

    They are on the device of ``like``, in its dtype or float32, whichever is wider. Angles are computed in float64: at
    position 16384 float32 angles are off by 1e-3 radians. The tables (a few thousand values) are computed in every
    forward, so that casting the model or a longer context cannot leave a stale or rounded table.
    """
    frequency_P = _frequencies(config, like.device)
    position_T = torch.arange(tokens, dtype=torch.float64, device=like.device)
    angle_T1P = position_T[:, None, None] * frequency_P
    dtype, length = torch.promote_types(like.dtype, torch.float32), _vector_length(config)
    return (angle_T1P.cos() * length).to(dtype), (angle_T1P.sin() * length).to(dtype)


def rotate(x_BTHR: Tensor, cos_T1P: Tensor, sin_T1P: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate each pair of neighbours (x0, x1), (x2, x3), … by its angle; return all first members and all second ones.

    They are separate because the caller concatenates them with the part without position, which saves a copy. Queries
    and keys are permuted alike, so their dot products are unchanged.
    """
    a_BTHP, b_BTHP = x_BTHR.view(*x_BTHR.shape[:-1], -1, 2).unbind(-1)
    first_BTHP = a_BTHP * cos_T1P - b_BTHP * sin_T1P
    second_BTHP = b_BTHP * cos_T1P + a_BTHP * sin_T1P
    return first_BTHP.to(x_BTHR.dtype), second_BTHP.to(x_BTHR.dtype)


def softmax_scale(config: ModelConfig) -> float:
    """Return the factor of the scores: (N + R)^-0.5, times YaRN's mscale of the whole head for query and key."""
    plain: float = config.qk_head_dim**-0.5
    return plain * _mscale(config.yarn_factor, config.yarn_mscale_all_dim) ** 2


def _vector_length(config: ModelConfig) -> float:
    """Return the factor of cosines and sines: the part of mscale that the softmax scale does not apply."""
    factor = config.yarn_factor
    return _mscale(factor, config.yarn_mscale) / _mscale(factor, config.yarn_mscale_all_dim)


def _mscale(factor: float, mscale: float) -> float:
    return 1.0 + 0.1 * mscale * math.log(factor)


def _frequencies(config: ModelConfig, device: torch.device) -> Tensor:
    """Return the radians per position of each pair: float64 (R / 2,)."""
    width, theta = config.qk_rope_head_dim, config.rope_theta
    pair_P = torch.arange(0, width, 2, dtype=torch.float64, device=device) / width
    frequency_P = theta**-pair_P
    if config.yarn_factor == 1:
        return frequency_P
    context = config.yarn_original_context
    assert context is not None  # ModelConfig.conflict

    def pair_that_rotates(times: float) -> float:
        return width * math.log(context / (times * 2 * math.pi)) / (2 * math.log(theta))

    # transformers and mlx-lm clamp the bounds to the width rather than to the number of pairs: so must this.
    first = max(math.floor(pair_that_rotates(config.yarn_beta_fast)), 0)
    last = min(math.ceil(pair_that_rotates(config.yarn_beta_slow)), width - 1)
    index_P = torch.arange(width // 2, dtype=torch.float64, device=device)
    scaled_P = ((index_P - first) / ((last - first) or 1)).clamp(0, 1)
    return frequency_P * (1 - scaled_P) + frequency_P / config.yarn_factor * scaled_P
