"""Checks which libraries are installed and whether they can work here, without importing them."""

from __future__ import annotations

import platform
from collections.abc import Iterator

from engine.checks.finding import Finding
from engine.execution.compiler import compile_problem
from engine.execution.dependencies import cuda_mismatch, deepspeed_problem, mlx_problem, pinning_problem
from engine.execution.installed import installed_version
from engine.execution.torch_build import torch_cuda_version
from engine.host.version import VERSION
from engine.runs.store import RunStore
from profiles.install_command import install_extra, install_package
from profiles.nvml import visible_device


def python_and_torch(store: RunStore) -> Iterator[Finding]:
    yield Finding("ok", "mla-tui", f"{VERSION} on Python {platform.python_version()}")
    torch = installed_version("torch")
    if torch is None:
        fix = f"{install_package('torch')} (pytorch.org names the wheel for your GPU)"
        yield Finding("error", "torch", "not installed", fix)
        return
    cuda = torch_cuda_version()
    yield Finding("ok", "torch", f"{torch}, " + (f"built for CUDA {cuda[0]}.{cuda[1]}" if cuda else "without CUDA"))
    device = "cuda" if visible_device() is not None else "cpu"
    if problem := compile_problem(device):
        message, _, fix = problem.partition("; ")
        yield Finding("warn", "torch.compile", f"not possible: {message}", fix)


def cuda(store: RunStore) -> Iterator[Finding]:
    if mismatch := cuda_mismatch():
        message, _, fix = mismatch.partition("; ")
        yield Finding("error", "CUDA", message, fix)
    elif visible_device() is not None:
        yield Finding("ok", "CUDA", "driver and GPU support this torch")
    if problem := pinning_problem():
        message, _, fix = problem.partition("; ")
        yield Finding("warn", "WSL", message, fix)


def backends(store: RunStore) -> Iterator[Finding]:
    """A missing optional library is fine; an installed one must work."""
    apple = platform.system() == "Darwin" and platform.machine() == "arm64"
    yield _optional("deepspeed", deepspeed_problem(), "for memory.strategy offload", visible_device() is not None)
    yield _optional("mlx", mlx_problem(), "for --backend mlx", apple)
    for package, use in (("torchao", "for memory.strategy states8bit"), ("gguf", "to export for llama.cpp")):
        missing = f"{package} is not installed; install it with {install_extra(package)}"
        yield _optional(package, None if installed_version(package) else missing, use, False)


def _optional(package: str, problem: str | None, use: str, wanted: bool) -> Finding:
    installed = installed_version(package)
    if problem is None:
        return Finding("ok", package, installed or "installed")
    message, _, fix = problem.partition("; ")
    if installed is None and not wanted:
        return Finding("ok", package, f"not installed; only needed {use}")
    return Finding("warn", package, f"{installed + ': ' if installed else ''}{message}", fix)
