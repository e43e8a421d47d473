"""Defines the model: pre-norm decoder blocks of latent attention and SwiGLU, with DeepSeek-V3's parameter names."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.attention import AttentionKind, documents_for
from model.attention_logits import LogitProbe
from model.checkpointing import Checkpointing, resolve_checkpointing, tiled
from model.documents import document_ids
from model.initial_weights import draw_normal
from model.layers import Linear, RMSNorm
from model.mla import MLAttention
from model.rope import rope_tables
from model.stream_offload import StreamOffload, no_offload
from profiles.model_config import ModelConfig


class SwiGLU(nn.Module):
    """Gated feed-forward: down(silu(gate(x)) * up(x)) (arXiv:2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = Linear(config.hidden_size, config.intermediate_size)
        self.up_proj = Linear(config.hidden_size, config.intermediate_size)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x_BTD: Tensor) -> Tensor:
        y_BTD: Tensor = self.down_proj(F.silu(self.gate_proj(x_BTD)) * self.up_proj(x_BTD))
        return y_BTD


class Block(nn.Module):
    """One layer: attention and feed-forward, each with a norm before it and a residual connection."""

    def __init__(self, config: ModelConfig, checkpointing: Checkpointing, attention: AttentionKind) -> None:
        super().__init__()
        self.checkpoint = resolve_checkpointing(checkpointing)
        self.tiled_mlp = checkpointing == "offload"
        self.self_attn = MLAttention(config, attention)
        self.mlp = SwiGLU(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x_BTD: Tensor, cos_T1P: Tensor, sin_T1P: Tensor, documents: Tensor | None = None) -> Tensor:
        return self.checkpoint(self._forward, x_BTD, cos_T1P, sin_T1P, documents)

    def _forward(self, x_BTD: Tensor, cos_T1P: Tensor, sin_T1P: Tensor, documents: Tensor | None) -> Tensor:
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), cos_T1P, sin_T1P, documents)
        return x_BTD + (tiled(self._feed_forward, x_BTD) if self.tiled_mlp else self._feed_forward(x_BTD))

    def _feed_forward(self, x_BTD: Tensor) -> Tensor:
        y_BTD: Tensor = self.mlp(self.post_attention_layernorm(x_BTD))
        return y_BTD


class Decoder(nn.Module):
    """Embedding, blocks and the last norm: tokens_BT -> x_BTD."""

    def __init__(
        self,
        config: ModelConfig,
        checkpointing: Checkpointing,
        attention: AttentionKind,
        stream: torch.dtype | None,
        document_end: int | None,
    ) -> None:
        super().__init__()
        self.config = config
        self.attention = attention
        self.stream = stream
        self.document_end = document_end
        self.logit_probe: LogitProbe | None = None  # measures the next forward, and that alone
        self.offloading = StreamOffload().forward if checkpointing == "offload" else no_offload
        # The plain constructor draws the weights, which on the meta device imports torch's compiler: a second.
        weight = torch.empty(config.vocab_size, config.hidden_size)
        self.embed_tokens = nn.Embedding.from_pretrained(weight, freeze=False)  # type: ignore[no-untyped-call]
        self.layers = nn.ModuleList(Block(config, checkpointing, attention) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        x_BTD: Tensor = self.embed_tokens(tokens_BT)
        x_BTD = x_BTD.to(self.stream or x_BTD.dtype)
        cos_T1P, sin_T1P = rope_tables(self.config, tokens_BT.shape[1], x_BTD)
        documents = ids_BT = None
        if self.document_end is not None:
            ids_BT = document_ids(tokens_BT, self.document_end)
            documents = documents_for(self.attention, ids_BT, x_BTD.dtype)
        probe, self.logit_probe = self.logit_probe, None
        with self.offloading() as around_block:
            for block in self.layers:
                if probe:
                    probe.measure(block, x_BTD, cos_T1P, sin_T1P, ids_BT)
                with around_block(x_BTD):
                    x_BTD = block(x_BTD, cos_T1P, sin_T1P, documents)
        x_BTD = self.norm(x_BTD)
        return x_BTD


class MLATransformer(nn.Module):
    """The language model.

    ``checkpointing`` and ``attention`` choose an implementation of the same arithmetic (``resolve_checkpointing``,
    ``resolve_attention``). ``stream`` is the dtype of the activations; None: that of the weights. ``document_end`` is
    the token that ends a document, so that none sees another (``model.documents``); None: a sequence is one piece.

    Parameters are named as in ``transformers.DeepseekV3ForCausalLM``. The constructor only allocates them (it works
    under ``torch.device("meta")``); ``build`` returns an initialized model.

    Raises SpecError for an unknown name.
    """

    def __init__(
        self,
        config: ModelConfig,
        checkpointing: Checkpointing = "none",
        attention: AttentionKind = "sdpa",
        stream: torch.dtype | None = None,
        document_end: int | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.document_end = document_end
        self.model = Decoder(config, checkpointing, attention, stream, document_end)
        self.lm_head = Linear(config.hidden_size, config.vocab_size)
        self.tie()

    def tie(self) -> None:
        """Share the embedding with the head if the config says so. Call it again after replacing parameters."""
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def hidden(self, tokens_BT: Tensor) -> Tensor:
        """Return the hidden states after the last norm, the input of the head: token ids (B, T) -> (B, T, D)."""
        x_BTD: Tensor = self.model(tokens_BT)
        return x_BTD

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Return the logits of the token after each: token ids (B, T) -> (B, T, V)."""
        logits_BTV: Tensor = self.lm_head(self.hidden(tokens_BT))
        return logits_BTV


def build(
    config: ModelConfig,
    seed: int,
    *,
    checkpointing: Checkpointing = "none",
    attention: AttentionKind = "sdpa",
    stream: torch.dtype | None = None,
    document_end: int | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> MLATransformer:
    """Return a newly initialized model on ``device`` with weights in ``dtype``.

    Matrices are normal(0, initializer_range); those that write to the residual stream (o_proj, down_proj) are smaller
    by sqrt(2 * layers), so that its variance does not grow with depth (GPT-2); norm scales are 1. The numbers depend
    only on config and seed: they are drawn on the CPU in float32, by as many threads as torch has
    (``model.initial_weights``), so the host holds at most 1 GiB besides the model.
    """
    with torch.device("meta"):
        model = MLATransformer(config, checkpointing, attention, stream, document_end)
    residual = ("o_proj.weight", "down_proj.weight")
    state, matrices = {}, []
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            depth = (2 * config.num_hidden_layers) ** -0.5 if name.endswith(residual) else 1.0
            state[name] = torch.empty(parameter.shape, dtype=dtype, device=device)
            matrices.append((state[name], config.initializer_range * depth))
        else:
            state[name] = torch.ones(parameter.shape, dtype=dtype, device=device)
    draw_normal(matrices, seed, torch.get_num_threads())
    # Not strict, because a tied head is one parameter with two names; tie() restores the second one.
    model.load_state_dict(state, strict=False, assign=True)
    model.tie()
    return model
