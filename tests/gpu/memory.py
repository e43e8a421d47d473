"""The forecast against measured peaks, under caps of 16, 24 and 32 GiB: ``memory.py TABLE.md``."""

from __future__ import annotations

import gc
import statistics
import sys
from pathlib import Path

import torch

from engine.memory.forecast import forecast
from engine.memory.hardware import detect_hardware
from engine.train.torch_backend import TorchBackend
from profiles.spec import RunSpec
from tests.gpu.harness import GIB, cap, grid, steps

CAPS = (16, 24, 32)


def main() -> None:
    hardware = detect_hardware()
    lines = [
        f"Card: {torch.cuda.get_device_name()}, torch {torch.__version__}. GiB; allocated at the peak of two steps.",
        "",
        "| cap | micro | context | checkpointing | forecast | allocated | reserved | error |",
        "|---|---|---|---|---|---|---|---|",
    ]
    errors = []
    for gib in CAPS:
        cap(gib)
        for run in grid():
            parts = forecast(run, hardware)
            told = parts.device_total - parts.device["context"]  # the allocator does not see the context
            if told > 2 * gib * GIB:
                continue  # far beyond: nothing to learn and minutes to lose
            allocated, reserved = _peak(run)
            row = f"| {gib} | {run.batch.micro} | {run.batch.context} | {run.memory.checkpointing} | {told / GIB:.2f} |"
            if allocated is None:
                lines.append(f"{row} out of memory | – | – |")
                continue
            error = told / allocated - 1
            errors.append(abs(error))
            lines.append(f"{row} {allocated / GIB:.2f} | {reserved / GIB:.2f} | {error:+.1%} |")
            print(lines[-1], flush=True)
    if errors:
        lines += ["", f"Median error {statistics.median(errors):.1%}, worst {max(errors):.1%}, n {len(errors)}."]
    Path(sys.argv[1]).write_text("\n".join(lines) + "\n")


def _peak(run: RunSpec) -> tuple[int | None, int]:
    """Bytes allocated and reserved at the peak of two steps; None where the cap holds too little."""
    torch.cuda.reset_peak_memory_stats()
    try:
        steps(TorchBackend(run), run, 2)
        return torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    except torch.OutOfMemoryError:
        return None, 0
    finally:
        gc.collect()
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
