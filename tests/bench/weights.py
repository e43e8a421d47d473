"""Measures drawing the weights of ``mla-1b`` on one thread and on several, in turn."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

PAIRS = 3


def bench_weights(home: Path) -> None:
    import torch

    from model.initial_weights import draw_normal
    from model.transformer import MLATransformer
    from profiles.registry import load

    with torch.device("meta"):
        model = MLATransformer(load("pretrain_5080").model.config)
    matrices = [(torch.ones(p.shape), 0.02) for p in model.parameters() if p.dim() > 1]
    print(f"{sum(matrix.numel() for matrix, _ in matrices) / 1e9:.2f} G values")
    taken: dict[int, list[tuple[float, float]]] = {1: [], torch.get_num_threads(): []}
    for _ in range(PAIRS):
        for threads, times in taken.items():
            wall, cpu = time.perf_counter(), time.process_time()
            draw_normal(matrices, 1, threads)
            times.append((time.perf_counter() - wall, time.process_time() - cpu))
    for threads, times in taken.items():
        wall, cpu = (statistics.median(each) for each in zip(*times, strict=True))
        print(f"{threads} threads: {wall:.2f} s, {cpu:.2f} CPU s (medians of {PAIRS})")
