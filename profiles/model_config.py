"""Defines the configuration of a model, without torch: forecasts and forms use it too."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def _number(default: float, low: float, high: float) -> Any:
    return field(default=default, metadata={"range": (low, high)})


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """An all-dense DeepSeek-V3 decoder with Multi-Head Latent Attention (arXiv:2412.19437, section 2.1.1).

    The names are those of ``transformers.DeepseekV3Config``. With ``q_lora_rank = None`` queries are projected
    directly from the hidden state. A ``yarn_factor`` above 1 extends rope from ``yarn_original_context`` tokens to
    ``yarn_factor`` times as many (YaRN, arXiv:2309.00071); the ``yarn_`` keys are those of ``rope_parameters``.
    """

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    kv_lora_rank: int
    intermediate_size: int
    vocab_size: int
    q_lora_rank: int | None = None
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    yarn_factor: float = _number(1.0, 1, 1e6)
    yarn_original_context: int | None = None
    yarn_beta_fast: float = _number(32.0, 1e-3, 1e6)
    yarn_beta_slow: float = _number(1.0, 1e-3, 1e6)
    # With mscale_all_dim = 0 YaRN scales only the rotated part of a head; DeepSeek scales the whole head.
    yarn_mscale: float = _number(1.0, 1e-3, 100)
    yarn_mscale_all_dim: float = _number(1.0, 0, 100)
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False

    @property
    def qk_head_dim(self) -> int:
        """Width of one query or key head: the nope part and the rotated (rope) part."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    def conflict(self) -> tuple[str, str] | None:
        """Return a field that contradicts another, and why; None if the config is consistent."""
        if self.qk_rope_head_dim % 2:
            return "qk_rope_head_dim", f"{self.qk_rope_head_dim} is odd; rope rotates pairs"
        if self.yarn_factor == 1:
            return None
        if self.yarn_original_context is None:
            return "yarn_original_context", f"is missing; yarn_factor = {self.yarn_factor:g} needs it"
        if self.yarn_beta_fast <= self.yarn_beta_slow:
            return "yarn_beta_fast", f"{self.yarn_beta_fast:g} is not above beta_slow = {self.yarn_beta_slow:g}"
        if self.rope_theta <= 1:
            return "yarn_factor", f"{self.yarn_factor:g} needs a rope_theta above 1, not {self.rope_theta:g}"
        if not self.yarn_mscale_all_dim and self.yarn_mscale != 1:
            # transformers then ignores mscale, mlx-lm applies it
            return (
                "yarn_mscale",
                f"{self.yarn_mscale:g} without yarn_mscale_all_dim is ambiguous; use 1 or set both",
            )
        return None

    @property
    def attention_params(self) -> int:
        """Parameters of one layer's attention, including its latent norms."""
        d, heads, latent = self.hidden_size, self.num_attention_heads, self.kv_lora_rank
        if self.q_lora_rank is None:
            query = d * heads * self.qk_head_dim
        else:
            query = d * self.q_lora_rank + self.q_lora_rank + self.q_lora_rank * heads * self.qk_head_dim
        down = d * (latent + self.qk_rope_head_dim) + latent
        up = latent * heads * (self.qk_nope_head_dim + self.v_head_dim)
        return query + down + up + heads * self.v_head_dim * d

    @property
    def params(self) -> int:
        """Parameters of the whole model."""
        layer = self.attention_params + 3 * self.hidden_size * self.intermediate_size + 2 * self.hidden_size
        return self.num_hidden_layers * layer + self.embedding_params + self.hidden_size

    @property
    def embedding_params(self) -> int:
        """Parameters of the embedding and the output head."""
        return self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)

    @property
    def cached_values_per_token(self) -> int:
        """Values in the generation cache per token and layer: the latent and the shared rope key."""
        return self.kv_lora_rank + self.qk_rope_head_dim


NAMED_MODELS = {
    # q/k = v = 128 allows every flash attention kernel; serving kernels support latent 512 + rope 64 = 576.
    "mla-1b": ModelConfig(
        hidden_size=1792,
        num_hidden_layers=27,
        num_attention_heads=14,
        qk_nope_head_dim=64,
        qk_rope_head_dim=64,
        v_head_dim=128,
        kv_lora_rank=512,
        intermediate_size=4608,
        vocab_size=32768,
    ),
    "mla-tiny": ModelConfig(
        hidden_size=192,
        num_hidden_layers=4,
        num_attention_heads=3,
        qk_nope_head_dim=32,
        qk_rope_head_dim=32,
        v_head_dim=64,
        kv_lora_rank=64,
        intermediate_size=512,
        vocab_size=4096,
    ),
}
