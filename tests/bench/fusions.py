"""Measures what each fusion gains: ``python -m tests.bench.fusions [ROUNDS]``.

First each alone on top of everything off, then all together without one, then one that was tried and is not used:
RMSNorm folded into the projections that read it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.train.backends.torch_backend import TorchBackend
from model.layers import Linear, RMSNorm
from model.transformer import Block
from tests.bench.paired import AUTO, OFF, Step, compare, ours, spec, step_of


def main() -> None:
    compare(
        {
            "everything off": ours(*OFF),
            "+ fused loss": ours(*OFF, "memory.loss=fused"),
            "+ compiled norms": altered(OFF, norms_compiled),
            "+ compiled SwiGLU": altered(OFF, feed_forward_compiled),
            "+ compiled attention half (RoPE)": altered(OFF, attention_compiled),
            "+ compiled blocks": altered(OFF, blocks_compiled),
            "+ blocked attention": ours(*OFF, "train.attention=blocked"),
            "everything auto": ours(*AUTO),
            "- fused loss": ours(*AUTO, "memory.loss=plain"),
            "- blocked attention": ours(*AUTO, "train.attention=sdpa"),
            "- compile": ours(*AUTO, "train.compile=off", "train.attention=blocked"),
            "+ RMSNorm folded into Linear": altered(AUTO, norms_folded),
        },
        int(sys.argv[1]) if len(sys.argv) > 1 else 11,
    )


def altered(overrides: list[str], alter: Callable[[Block], None]) -> Step:
    """Return a step of a backend whose blocks were altered before their first use."""
    backend = TorchBackend(spec(*overrides))
    for block in backend.model.model.layers:
        assert isinstance(block, Block)
        alter(block)
    return step_of(backend, spec(*overrides))


def norms_compiled(block: Block) -> None:
    for module in block.modules():
        if isinstance(module, RMSNorm):
            module.compile(dynamic=False)


def feed_forward_compiled(block: Block) -> None:
    block.mlp.compile(dynamic=False)


def attention_compiled(block: Block) -> None:
    block.self_attn.compile(dynamic=False)


def blocks_compiled(block: Block) -> None:
    block.compile(dynamic=False)


def norms_folded(block: Block) -> None:
    """Compute Linear(RMSNorm(x)) as rstd * (x @ (W * g)): the normed stream is never written to memory."""
    attention, mlp = block.self_attn, block.mlp
    attention.q_proj = Folded(block.input_layernorm, attention.q_proj)  # type: ignore[assignment]
    attention.kv_a_proj_with_mqa = Folded(block.input_layernorm, attention.kv_a_proj_with_mqa)  # type: ignore[assignment]
    mlp.gate_proj = Folded(block.post_attention_layernorm, mlp.gate_proj)  # type: ignore[assignment]
    mlp.up_proj = Folded(block.post_attention_layernorm, mlp.up_proj)  # type: ignore[assignment]
    block.input_layernorm = block.post_attention_layernorm = nn.Identity()  # type: ignore[assignment]


class Folded(nn.Module):
    def __init__(self, norm: RMSNorm, linear: Linear) -> None:
        super().__init__()
        self.norm, self.linear = norm, linear

    def forward(self, x: Tensor) -> Tensor:
        rstd = torch.rsqrt(x.float().square().mean(-1, keepdim=True) + self.norm.eps)
        weight = (self.linear.weight * self.norm.weight).to(x.dtype)
        return F.linear(x, weight) * rstd.to(x.dtype)


if __name__ == "__main__":
    main()
