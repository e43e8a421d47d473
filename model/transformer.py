"""The decoder: pre-norm blocks of latent attention and SwiGLU, under the parameter names of DeepSeek-V3."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.mla import MLAttention, RMSNorm, rope_tables
from profiles.errors import SpecError
from profiles.model_config import ModelConfig

Checkpointing = Literal["none", "full"]


class SwiGLU(nn.Module):
    """Gated feed-forward: down(silu(gate(x)) * up(x)) (arXiv:2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        y_BTD: Tensor = self.down_proj(F.silu(self.gate_proj(x_BTD)) * self.up_proj(x_BTD))
        return y_BTD


class Block(nn.Module):
    """One layer: attention and feed-forward, each normed before and added to the stream after."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.self_attn = MLAttention(config)
        self.mlp = SwiGLU(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x_BTD: Tensor, cos_T1P: Tensor, sin_T1P: Tensor) -> Tensor:
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), cos_T1P, sin_T1P)
        x_BTD = x_BTD + self.mlp(self.post_attention_layernorm(x_BTD))
        return x_BTD


def _keep(block: nn.Module, *args: Tensor) -> Any:
    return block(*args)


def _recompute(block: nn.Module, *args: Tensor) -> Any:
    # The model draws no random numbers, so there is no generator state to save and restore a block.
    return checkpoint(block, *args, use_reentrant=False, preserve_rng_state=False)


_RUN_BLOCK: dict[str, Callable[..., Any]] = {"none": _keep, "full": _recompute}


class Decoder(nn.Module):
    """Embedding, blocks and the last norm: tokens_BT -> x_BTD."""

    def __init__(self, config: ModelConfig, checkpointing: Checkpointing) -> None:
        super().__init__()
        self.rope_width = config.qk_rope_head_dim
        self.rope_theta = config.rope_theta
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.run_block = _RUN_BLOCK[checkpointing]

    def forward(self, tokens_BT: Tensor) -> Tensor:
        x_BTD: Tensor = self.embed_tokens(tokens_BT)
        cos_T1P, sin_T1P = rope_tables(tokens_BT.shape[1], self.rope_width, self.rope_theta, x_BTD)
        for block in self.layers:
            x_BTD = self.run_block(block, x_BTD, cos_T1P, sin_T1P)
        x_BTD = self.norm(x_BTD)
        return x_BTD


class MLATransformer(nn.Module):
    """The language model. ``checkpointing="full"`` keeps only what enters each block and recomputes the rest.

    Parameters are named as in ``transformers.DeepseekV3ForCausalLM``. The constructor only allots them (it works under
    ``torch.device("meta")``); ``build`` makes a model ready to train.

    Raises SpecError for an unknown ``checkpointing``.
    """

    def __init__(self, config: ModelConfig, checkpointing: Checkpointing = "none") -> None:
        super().__init__()
        if checkpointing not in _RUN_BLOCK:
            allowed = ", ".join(get_args(Checkpointing))
            raise SpecError(f"memory.checkpointing: {checkpointing!r} is not one of {allowed}")
        self.config = config
        self.model = Decoder(config, checkpointing)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.tie()

    def tie(self) -> None:
        """Let the head share the embedding where the config says so; needed again after parameters were replaced."""
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def hidden(self, tokens_BT: Tensor) -> Tensor:
        """The stream after the last norm, what the head reads: token ids (B, T) -> (B, T, D)."""
        x_BTD: Tensor = self.model(tokens_BT)
        return x_BTD

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Token ids (B, T) -> logits (B, T, V) of the token that follows each."""
        logits_BTV: Tensor = self.lm_head(self.hidden(tokens_BT))
        return logits_BTV


def build(
    config: ModelConfig,
    seed: int,
    *,
    checkpointing: Checkpointing = "none",
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> MLATransformer:
    """A freshly initialised model on ``device`` in ``dtype``.

    Matrices are normal(0, initializer_range); what writes into the stream (o_proj, down_proj) is smaller by
    sqrt(2 * layers), so that the stream's variance does not grow with depth (GPT-2); norm scales are 1. The numbers
    depend on config and seed alone: they are drawn on the CPU in float32, one parameter at a time, so the host never
    holds more than one of them besides the model.
    """
    with torch.device("meta"):
        model = MLATransformer(config, checkpointing)
    generator = torch.Generator("cpu").manual_seed(seed)
    writers = ("o_proj.weight", "down_proj.weight")
    state = {}
    for name, parameter in model.named_parameters():
        initial = torch.ones(parameter.shape, dtype=torch.float32, device="cpu")
        if parameter.dim() > 1:
            depth = (2 * config.num_hidden_layers) ** -0.5 if name.endswith(writers) else 1.0
            initial.normal_(0.0, config.initializer_range * depth, generator=generator)
        state[name] = initial.to(device, dtype)
    # Not strict because a tied head is one parameter under two names; tie() gives it back its second one.
    model.load_state_dict(state, strict=False, assign=True)
    model.tie()
    return model
