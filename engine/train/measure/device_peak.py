"""Finds the peak FLOP/s that a run's MFU is a fraction of: published for its device, else measured here."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from engine.execution.peak_flops import MEASURED, Peak, peak

CPU_SIZE = 512  # rows and columns: large enough for the full speed of one thread
SECONDS = 0.02  # of products of one size, after the first
DEVICE_SIZES = (64, 128, 256, 512, 1024, 2048, 4096, 8192)
LONG_PRODUCT = 2e-3  # seconds; a larger one is no faster


def device_peak(name: str, device: str, precision: str) -> Peak:
    """Return the peak of the device called ``name`` in a run's ``precision``. ``device``: cuda, cpu or mlx."""
    dtype = "bf16" if precision.startswith("bf16") else "fp32"
    return peak(name, dtype) or Peak(_measured(device, dtype), MEASURED)


def _measured(device: str, dtype: str) -> float:
    """Return the FLOP/s of square matrix products on ``device``.

    Of a CPU it is the rate of one thread, by its CPU time, times the threads: load on the machine does not lower it.
    Cores that slow down when all are busy, or that are two threads of one, do not reach it. MLX uses one thread.
    """
    if device == "cpu":
        return _measured_cpu(dtype)
    product, clock = (_mlx_product, _mlx_clock()) if device == "mlx" else (_cuda_product, time.perf_counter)
    rates = []
    for size in DEVICE_SIZES:
        seconds = _median(product(size, dtype), clock)
        rates.append(2 * size**3 / seconds)
        if seconds > LONG_PRODUCT:
            break
    return max(rates)


def _measured_cpu(dtype: str) -> float:
    import torch

    x = _values(CPU_SIZE, "cpu", dtype)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return threads * 2 * CPU_SIZE**3 / _median(lambda: x @ x, time.thread_time)
    finally:
        torch.set_num_threads(threads)


def _median(run: Callable[[], object], clock: Callable[[], float]) -> float:
    """Return the median time of one ``run`` on ``clock``. The first, which picks a kernel, does not count."""
    run()
    times: list[float] = []
    while not times or sum(times) < SECONDS:
        begun = clock()
        run()
        times.append(clock() - begun)
    return statistics.median(times)


def _cuda_product(size: int, dtype: str) -> Callable[[], object]:
    import torch

    x = _values(size, "cuda", dtype)

    def run() -> None:
        x @ x
        torch.cuda.synchronize()

    return run


def _mlx_product(size: int, dtype: str) -> Callable[[], object]:
    import mlx.core as mx

    x = mx.sin(mx.arange(size * size)).reshape(size, size).astype(mx.bfloat16 if dtype == "bf16" else mx.float32)
    mx.eval(x)
    return lambda: mx.eval(x @ x)


def _mlx_clock() -> Callable[[], float]:
    """Return a clock of CPU time where MLX computes on the CPU, in a thread of its own."""
    import mlx.core as mx

    return time.process_time if mx.default_device() == mx.cpu else time.perf_counter


def _values(size: int, device: str, dtype: str) -> Any:
    """Return a square matrix of values between -1 and 1, without drawing from the run's random numbers."""
    import torch

    values = torch.arange(size * size, dtype=torch.float32, device=device).sin_()
    return values.to(torch.bfloat16 if dtype == "bf16" else torch.float32).view(size, size)
