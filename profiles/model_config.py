"""Defines the configuration of a model, without torch: forecasts and forms use it too."""

from __future__ import annotations

from dataclasses import dataclass

from profiles.fields import number


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """An all-dense DeepSeek-V3 decoder with Multi-Head Latent Attention (arXiv:2412.19437, section 2.1.1).

    The names are those of ``transformers.DeepseekV3Config``. Without ``q_lora_rank`` queries are projected
    directly from the hidden state. A ``yarn_factor`` above 1 extends rope from ``yarn_original_context`` tokens to
    ``yarn_factor`` times as many (YaRN, arXiv:2309.00071); the ``yarn_`` keys are those of ``rope_parameters``.
    """

    hidden_size: int  # width of the stream between the layers
    num_hidden_layers: int  # blocks of attention and feed-forward
    num_attention_heads: int  # per layer
    qk_nope_head_dim: int  # width of a query or key head's part without rope
    qk_rope_head_dim: int  # width of its part with rope; even, because rope rotates pairs
    v_head_dim: int  # width of a value head
    kv_lora_rank: int  # width of the latent that keys and values are made of; all that generation keeps beside rope
    intermediate_size: int  # width inside the feed-forward
    vocab_size: int  # ids of the tokenizer, at least
    q_lora_rank: int | None = None  # width of the latent that queries are made of; null: they have none
    rms_norm_eps: float = 1e-6  # added to the mean square in RMSNorm
    rope_theta: float = 10000.0  # base of rope's wavelengths; larger for longer contexts
    yarn_factor: float = number(1.0, 1, 1e6)  # how many times the context is longer; 1: no YaRN
    yarn_original_context: int | None = None  # tokens of the context before YaRN
    yarn_beta_fast: float = number(32.0, 1e-3, 1e6)  # pairs that turn more often than this keep their wavelength
    yarn_beta_slow: float = number(1.0, 1e-3, 1e6)  # pairs that turn less often are stretched by the whole factor
    yarn_mscale: float = number(1.0, 1e-3, 100)  # scale of the attention's logits for a longer context
    # 0: YaRN scales only the rotated part of a head; DeepSeek scales the whole head
    yarn_mscale_all_dim: float = number(1.0, 0, 100)
    initializer_range: float = 0.02  # standard deviation of the first weights
    tie_word_embeddings: bool = False  # the output head is the embedding

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
