"""Compares decoding from the latent cache with running the whole text again for every token, alternately.

``python -m tests.bench.decode``: four layers of ``mla-1b``, bf16, one text.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import replace

import torch

from model.latent_cache import LatentCache, forward_cached
from model.transformer import build
from profiles.model_config import NAMED_MODELS

LAYERS, ROUNDS = 4, 9


def main() -> None:
    config = replace(NAMED_MODELS["mla-1b"], num_hidden_layers=LAYERS)
    model = build(config, 0, dtype=torch.bfloat16)
    print(f"{LAYERS} layers of mla-1b, bf16, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for context in (128, 512, 2048):
        text_BT = torch.randint(0, config.vocab_size, (1, context))
        cache = LatentCache(model, context)
        forward_cached(model, text_BT[:, :-1], cache)
        length = cache.length
        seconds: dict[str, list[float]] = {"cache": [], "full": []}
        for _ in range(ROUNDS):
            cache.length = length  # decode the same token again
            start = time.perf_counter()
            with torch.no_grad():
                model.lm_head(forward_cached(model, text_BT[:, -1:], cache))
            seconds["cache"].append(time.perf_counter() - start)
            start = time.perf_counter()
            with torch.no_grad():
                model.lm_head(model.hidden(text_BT)[:, -1:])
            seconds["full"].append(time.perf_counter() - start)
        speed = {name: 1 / statistics.median(taken) for name, taken in seconds.items()}
        size = f"cache {cache.bytes / 2**20:.2f} MiB"
        print(f"after {context:5} tokens: {speed['cache']:.1f} tokens/s, without a cache {speed['full']:.2f}; {size}")


if __name__ == "__main__":
    main()
