"""Implements Multi-Head Latent Attention: keys and values are projected up from one small latent per token.

Arithmetic and parameter names are those of DeepSeek-V3 (arXiv:2412.19437, section 2.1.1) in ``transformers``, so
weights can be exchanged without conversion.

Shape suffixes in this package: B sequences, T tokens, D hidden, H heads, N head width without position, R rotated head
width, P = R/2 rotated pairs, Q = N + R query and key head width, E value head width, L latent, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.attention import AttentionKind, resolve_attention
from model.layers import Linear, RMSNorm
from model.rope import rotate, softmax_scale
from profiles.model_config import ModelConfig

# In DeepSeek-V3 the norms of the latents have this fixed eps, independent of rms_norm_eps.
LATENT_NORM_EPS = 1e-6


class MLAttention(nn.Module):
    """Causal self-attention of one layer."""

    def __init__(self, config: ModelConfig, attention: AttentionKind) -> None:
        super().__init__()
        c = config
        self.attend = resolve_attention(attention)
        self.heads = c.num_attention_heads
        self.key_widths = [c.qk_nope_head_dim, c.qk_rope_head_dim]
        self.latent_widths = [c.kv_lora_rank, c.qk_rope_head_dim]
        self.kv_widths = [c.qk_nope_head_dim, c.v_head_dim]
        self.scale = softmax_scale(c)
        self.query_latent = c.q_lora_rank is not None
        if c.q_lora_rank is None:
            self.q_proj = Linear(c.hidden_size, self.heads * c.qk_head_dim)
        else:
            self.q_a_proj = Linear(c.hidden_size, c.q_lora_rank)
            self.q_a_layernorm = RMSNorm(c.q_lora_rank, LATENT_NORM_EPS)
            self.q_b_proj = Linear(c.q_lora_rank, self.heads * c.qk_head_dim)
        self.kv_a_proj_with_mqa = Linear(c.hidden_size, sum(self.latent_widths))
        self.kv_a_layernorm = RMSNorm(c.kv_lora_rank, LATENT_NORM_EPS)
        self.kv_b_proj = Linear(c.kv_lora_rank, self.heads * sum(self.kv_widths))
        self.o_proj = Linear(self.heads * c.v_head_dim, c.hidden_size)

    def forward(self, x_BTD: Tensor, cos_T1P: Tensor, sin_T1P: Tensor, documents: Tensor | None = None) -> Tensor:
        """Attend from each token to itself and all tokens before it, or to those of its document.

        The tables are those of ``rope_tables``; ``documents``: what ``documents_for`` returned.
        """
        q_BTHQ = self.rotated_queries(x_BTD, cos_T1P, sin_T1P)
        k_BTHQ, v_BTHE = self.rotated_keys_and_values(x_BTD, cos_T1P, sin_T1P)

        # No copy: in memory heads stay inside the token axis, and the attention kernels accept these strides.
        q_BHTQ, k_BHTQ, v_BHTE = q_BTHQ.transpose(1, 2), k_BTHQ.transpose(1, 2), v_BTHE.transpose(1, 2)
        out_BHTE = self.attend(q_BHTQ, k_BHTQ, v_BHTE, self.scale, documents)
        y_BTD: Tensor = self.o_proj(out_BHTE.transpose(1, 2).flatten(2))
        return y_BTD

    def rotated_queries(self, x_BTD: Tensor, cos_T1P: Tensor, sin_T1P: Tensor) -> Tensor:
        """Return each head's whole query (B, T, H, Q)."""
        q_BTHN, q_BTHR = self.queries(x_BTD)
        return torch.cat((q_BTHN, *rotate(q_BTHR, cos_T1P, sin_T1P)), -1)

    def rotated_keys_and_values(self, x_BTD: Tensor, cos_T1P: Tensor, sin_T1P: Tensor) -> tuple[Tensor, Tensor]:
        """Return each head's whole key (B, T, H, Q) and its value (B, T, H, E)."""
        latent_BTL, k_BTR = self.latents(x_BTD)
        kv_BTHX = self.kv_b_proj(latent_BTL).view(*x_BTD.shape[:2], self.heads, -1)
        k_BTHN, v_BTHE = torch.split(kv_BTHX, self.kv_widths, -1)
        rotated = (half.expand(-1, -1, self.heads, -1) for half in rotate(k_BTR.unsqueeze(2), cos_T1P, sin_T1P))
        return torch.cat((k_BTHN, *rotated), -1), v_BTHE

    def queries(self, x_BTD: Tensor) -> tuple[Tensor, ...]:
        """Return each head's query: the part without position (B, T, H, N) and the part to rotate (B, T, H, R)."""
        if self.query_latent:
            q = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x_BTD)))
        else:
            q = self.q_proj(x_BTD)
        return torch.split(q.view(*x_BTD.shape[:2], self.heads, -1), self.key_widths, -1)

    def latents(self, x_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """Return the source of keys and values: the normed latent (B, T, L) and the shared key to rotate (B, T, R)."""
        latent_BTL, k_BTR = torch.split(self.kv_a_proj_with_mqa(x_BTD), self.latent_widths, -1)
        return self.kv_a_layernorm(latent_BTL), k_BTR
