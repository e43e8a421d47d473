"""Tokens a second of ``mla-1b`` on one card and their share of the measured matmul ceiling: ``bench.py TABLE.md``."""

from __future__ import annotations

import gc
import statistics
import sys
import time
from pathlib import Path

import torch

from engine.train.torch_backend import TorchBackend
from profiles.model_config import ModelConfig
from profiles.spec import RunSpec
from tests.gpu.harness import spec, steps

ROUNDS = 5


def main() -> None:
    ceiling = _ceiling()
    lines = [
        f"Card: {torch.cuda.get_device_name()}, torch {torch.__version__}. Matmul ceiling {ceiling / 1e12:.0f} TFLOP/s"
        f" (bf16, 8192³). Medians of {ROUNDS} steps.",
        "",
        "| model | micro | context | checkpointing | compile | tokens/s | share of the ceiling |",
        "|---|---|---|---|---|---|---|",
    ]
    for micro, context, checkpointing in ((4, 2048, "none"), (8, 2048, "none"), (12, 2048, "full"), (1, 16384, "full")):
        run = spec(micro, context, checkpointing)
        speed = _speed(run)
        share = speed * _flops_per_token(run.model.config, context) / ceiling
        lines.append(f"| {run.model.name} | {micro} | {context} | {checkpointing} | off | {speed:,.0f} | {share:.1%} |")
        print(lines[-1], flush=True)
    Path(sys.argv[1]).write_text("\n".join(lines) + "\n")


def _speed(run: RunSpec) -> float:
    backend = TorchBackend(run)
    steps(backend, run, 2)
    times = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        steps(backend, run, 1)
        times.append(time.perf_counter() - begun)
    del backend
    gc.collect()
    torch.cuda.empty_cache()
    return run.tokens_per_step / statistics.median(times)


def _flops_per_token(config: ModelConfig, context: int) -> float:
    """Forward and backward, nothing recomputed: 6 a matmul weight plus causal attention (arXiv:2204.02311, B)."""
    weights = config.params - config.vocab_size * config.hidden_size  # looking an embedding up is no product
    attention = config.num_attention_heads * (config.qk_head_dim + config.v_head_dim) * context / 2
    return 6.0 * weights + 6.0 * config.num_hidden_layers * attention


def _ceiling() -> float:
    """FLOP/s of a large bf16 product on random numbers: what this card's matmuls can reach."""
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    b = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    for _ in range(3):
        a @ b
    torch.cuda.synchronize()
    begun = time.perf_counter()
    for _ in range(20):
        a @ b
    torch.cuda.synchronize()
    return 20 * 2 * 8192**3 / (time.perf_counter() - begun)


if __name__ == "__main__":
    main()
