"""Multi-Head Latent Attention: keys and values are rebuilt from one small latent a token.

Numbers and parameter names are those of DeepSeek-V3 (arXiv:2412.19437, section 2.1.1) as ``transformers`` reads it, so
weights move between the two without change.

Shape suffixes in this package: B sequences, T tokens, D hidden, H heads, N head width without position, R rotated head
width, P = R/2 rotated pairs, Q = N + R query and key head width, E value head width, L latent, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from profiles.model_config import ModelConfig

# DeepSeek gives the norms of the latents no setting of their own: they keep this eps whatever rms_norm_eps says.
LATENT_NORM_EPS = 1e-6


class RMSNorm(nn.Module):
    """Root mean square norm over the last axis, with a learned scale (arXiv:1910.07467)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        # Under autocast a projection arrives in bf16 and meets the fp32 scale; torch has no fused kernel for the mix.
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)


def rope_tables(tokens: int, width: int, theta: float, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the angle of every position and pair: two tensors of shape (tokens, 1, width / 2).

    They lie on the device of ``like``, in its dtype but never below float32. The angles are taken in float64: at
    position 16384 float32 angles are already off by 1e-3 radians. Made anew for each forward (a few thousand values),
    so that neither a cast of the model nor a longer context can leave a stale or rounded table behind.
    """
    device = like.device
    pair_P = torch.arange(0, width, 2, dtype=torch.float64, device=device) / width
    position_T = torch.arange(tokens, dtype=torch.float64, device=device)
    angle_T1P = position_T[:, None, None] * theta**-pair_P
    dtype = torch.promote_types(like.dtype, torch.float32)
    return angle_T1P.cos().to(dtype), angle_T1P.sin().to(dtype)


def rotate(x_BTHR: Tensor, cos_T1P: Tensor, sin_T1P: Tensor) -> tuple[Tensor, Tensor]:
    """Turn each neighbouring pair (x0, x1), (x2, x3), … by its angle; all first members, then all second ones.

    Returned apart because the caller joins them with the part without position: one copy instead of two. Queries and
    keys are permuted alike, so their products do not see it.
    """
    a_BTHP, b_BTHP = x_BTHR.view(*x_BTHR.shape[:-1], -1, 2).unbind(-1)
    first_BTHP = a_BTHP * cos_T1P - b_BTHP * sin_T1P
    second_BTHP = b_BTHP * cos_T1P + a_BTHP * sin_T1P
    return first_BTHP.to(x_BTHR.dtype), second_BTHP.to(x_BTHR.dtype)


class MLAttention(nn.Module):
    """Causal self-attention of one layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c = config
        self.heads = c.num_attention_heads
        self.key_widths = [c.qk_nope_head_dim, c.qk_rope_head_dim]
        self.latent_widths = [c.kv_lora_rank, c.qk_rope_head_dim]
        self.kv_widths = [c.qk_nope_head_dim, c.v_head_dim]
        self.scale = c.qk_head_dim**-0.5
        self.query_latent = c.q_lora_rank is not None
        if c.q_lora_rank is None:
            self.q_proj = nn.Linear(c.hidden_size, self.heads * c.qk_head_dim, bias=False)
        else:
            self.q_a_proj = nn.Linear(c.hidden_size, c.q_lora_rank, bias=False)
            self.q_a_layernorm = RMSNorm(c.q_lora_rank, LATENT_NORM_EPS)
            self.q_b_proj = nn.Linear(c.q_lora_rank, self.heads * c.qk_head_dim, bias=False)
        self.kv_a_proj_with_mqa = nn.Linear(c.hidden_size, sum(self.latent_widths), bias=False)
        self.kv_a_layernorm = RMSNorm(c.kv_lora_rank, LATENT_NORM_EPS)
        self.kv_b_proj = nn.Linear(c.kv_lora_rank, self.heads * sum(self.kv_widths), bias=False)
        self.o_proj = nn.Linear(self.heads * c.v_head_dim, c.hidden_size, bias=False)

    def forward(self, x_BTD: Tensor, cos_T1P: Tensor, sin_T1P: Tensor) -> Tensor:
        """Attend from each of x_BTD to itself and all before it, with the tables of ``rope_tables``."""
        batch, tokens, _ = x_BTD.shape
        q_BTHQ = self._queries(x_BTD).view(batch, tokens, self.heads, -1)
        q_BTHN, q_BTHR = torch.split(q_BTHQ, self.key_widths, -1)
        q_BTHQ = torch.cat((q_BTHN, *rotate(q_BTHR, cos_T1P, sin_T1P)), -1)

        latent_BTL, k_BTR = torch.split(self.kv_a_proj_with_mqa(x_BTD), self.latent_widths, -1)
        kv_BTHX = self.kv_b_proj(self.kv_a_layernorm(latent_BTL)).view(batch, tokens, self.heads, -1)
        k_BTHN, v_BTHE = torch.split(kv_BTHX, self.kv_widths, -1)
        rotated = (half.expand(-1, -1, self.heads, -1) for half in rotate(k_BTR.unsqueeze(2), cos_T1P, sin_T1P))
        k_BTHQ = torch.cat((k_BTHN, *rotated), -1)

        # Heads stay inside the token axis in memory: the attention kernels take the strides as they are.
        out_BHTE = F.scaled_dot_product_attention(
            q_BTHQ.transpose(1, 2), k_BTHQ.transpose(1, 2), v_BTHE.transpose(1, 2), is_causal=True, scale=self.scale
        )
        y_BTD: Tensor = self.o_proj(out_BHTE.transpose(1, 2).flatten(2))
        return y_BTD

    def _queries(self, x_BTD: Tensor) -> Tensor:
        q: Tensor
        if self.query_latent:
            q = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x_BTD)))
        else:
            q = self.q_proj(x_BTD)
        return q
