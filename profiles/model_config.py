"""The shape of a model: plain numbers, so that forecasts and forms need no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def _number(default: float, low: float, high: float) -> Any:
    return field(default=default, metadata={"range": (low, high)})


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """An all-dense DeepSeek-V3 decoder with Multi-Head Latent Attention (arXiv:2412.19437, section 2.1.1).

    The names are those of ``transformers.DeepseekV3Config``. ``q_lora_rank = None`` means queries are projected
    directly from the hidden state. ``yarn_factor`` above 1 stretches rope from ``yarn_original_context`` tokens to that
    many times more (arXiv:2309.00071); its keys are those of ``rope_parameters`` with ``yarn_`` before them.
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
    # 0 for mscale_all_dim puts the whole sharpening on the rotated part; DeepSeek spreads it over the whole head.
    yarn_mscale: float = _number(1.0, 1e-3, 100)
    yarn_mscale_all_dim: float = _number(1.0, 0, 100)
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False

    @property
    def qk_head_dim(self) -> int:
        """Width of one query or key head: the part without position, then the rotated part."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    def conflict(self) -> tuple[str, str] | None:
        """A field that does not go with the others, and its value and what would; None where all is well."""
        if self.qk_rope_head_dim % 2:
            return "qk_rope_head_dim", f"{self.qk_rope_head_dim} is odd; rope turns pairs"
        if self.yarn_factor == 1:
            return None
        if self.yarn_original_context is None:
            return "yarn_original_context", f"is missing; a factor of {self.yarn_factor:g} stretches a known context"
        if self.yarn_beta_fast <= self.yarn_beta_slow:
            return "yarn_beta_fast", f"{self.yarn_beta_fast:g} is not above beta_slow = {self.yarn_beta_slow:g}"
        if self.rope_theta <= 1:
            return "yarn_factor", f"{self.yarn_factor:g} needs a rope_theta above 1, not {self.rope_theta:g}"
        if not self.yarn_mscale_all_dim and self.yarn_mscale != 1:
            # transformers then takes 1 whatever mscale says, mlx-lm takes what it says
            return (
                "yarn_mscale",
                f"{self.yarn_mscale:g} without mscale_all_dim is read in two ways; use 1 or give both",
            )
        return None

    @property
    def attention_params(self) -> int:
        """Parameters of one layer's attention, its latent norms included."""
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
        """All parameters of the model."""
        layer = self.attention_params + 3 * self.hidden_size * self.intermediate_size + 2 * self.hidden_size
        return self.num_hidden_layers * layer + self.embedding_params + self.hidden_size

    @property
    def embedding_params(self) -> int:
        """Parameters of the embedding and the head."""
        return self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)

    @property
    def cached_values_per_token(self) -> int:
        """Values kept a token and layer while generating: the latent and the shared rope key."""
        return self.kv_lora_rank + self.qk_rope_head_dim


NAMED_MODELS = {
    # q/k = v = 128 keeps every fast attention path; latent 512 + rope 64 = 576 is the shape serving kernels know.
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
