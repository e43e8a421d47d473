"""The libraries a run needs: which are there, and whether they can work here. None of them is imported."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from engine.checks.finding import Finding
from engine.execution.compiler import compile_problem
from engine.execution.dependencies import cuda_mismatch, deepspeed_problem, mlx_problem, torch_cuda_version
from engine.host.version import package_version
from engine.runs.store import RunStore
from profiles.nvml import visible_device


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def python_and_torch(store: RunStore) -> Iterator[Finding]:
    yield Finding("ok", "mla-tui", f"{package_version()} on Python {platform.python_version()}")
    torch = _version("torch")
    if torch is None:
        yield Finding("bad", "torch", "not installed", "pip install torch (pytorch.org names the wheel for your card)")
        return
    cuda = torch_cuda_version()
    yield Finding("ok", "torch", f"{torch}, " + (f"built for CUDA {cuda[0]}.{cuda[1]}" if cuda else "without CUDA"))
    device = "cuda" if visible_device() is not None else "cpu"
    if missing := compile_problem(device):
        said, _, way = missing.partition("; ")
        yield Finding("warn", "torch.compile", f"not possible: {said}", way)


def cuda(store: RunStore) -> Iterator[Finding]:
    if mismatch := cuda_mismatch():
        said, _, way = mismatch.partition("; ")
        yield Finding("bad", "CUDA", said, way)
    elif visible_device() is not None:
        yield Finding("ok", "CUDA", "the driver fits this torch")


def backends(store: RunStore) -> Iterator[Finding]:
    """What is optional is well where it is not there; what is there must work."""
    apple = platform.system() == "Darwin" and platform.machine() == "arm64"
    yield _optional("deepspeed", deepspeed_problem(), "for memory.strategy offload", visible_device() is not None)
    yield _optional("mlx", mlx_problem(), "for --backend mlx", apple)
    torchao = _version("torchao")
    missing = None if torchao else "torchao is not installed; install it with pip install 'mla-tui[torchao]'"
    yield _optional("torchao", missing, "for memory.strategy states8bit", False)


def _optional(package: str, missing: str | None, use: str, wanted: bool) -> Finding:
    there = _version(package)
    if missing is None:
        return Finding("ok", package, there or "there")
    said, _, way = missing.partition("; ")
    if there is None and not wanted:
        return Finding("ok", package, f"not installed; only {use}")
    return Finding("warn", package, f"{there + ': ' if there else ''}{said}", way)
