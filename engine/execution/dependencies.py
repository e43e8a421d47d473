"""Checks without importing them whether the libraries of each backend can work on this machine."""

from __future__ import annotations

import platform
import re
import shutil
from importlib.util import find_spec

from engine.execution.compiler import compile_problem
from engine.execution.installed import installed_version
from engine.execution.torch_build import runs_on, torch_architectures, torch_cuda_version
from profiles.install_command import install_extra, install_package, install_torch
from profiles.nvml import visible_device

# Older versions drop gradients if the optimizer is offloaded and a step has three or more micro-batches.
MIN_DEEPSPEED = (0, 19, 5)

OR_TORCH = ", or use --backend torch"
_BLACKWELL = 10  # compute capability; its code comes with CUDA 12.8

_UNPINNED = '{"zero_optimization": {"offload_optimizer": {"pin_memory": false}}}'


def deepspeed_problem() -> str | None:
    """Return what DeepSpeed's CPU optimizer needs and this machine lacks, or None.

    The optimizer is C++ that DeepSpeed builds on first use. It needs no CUDA toolkit.
    """
    if platform.system() != "Linux":
        return f"DeepSpeed runs on Linux, not on {platform.system()}; use --backend torch, or mlx on a Mac"
    installed = installed_version("deepspeed")
    if installed is None:
        return f"deepspeed is not installed; install it with {install_extra('deepspeed')}{OR_TORCH}"
    if tuple(int(n) for n in re.findall(r"\d+", installed)[:3]) < MIN_DEEPSPEED:
        oldest = ".".join(map(str, MIN_DEEPSPEED))
        return f"deepspeed {installed} loses gradients with an offloaded optimizer; install deepspeed>={oldest}"
    if missing := compile_problem("cpu"):
        return f"its optimizer is built on first use, but {missing}"
    if find_spec("ninja") is None and shutil.which("ninja") is None:
        return f"its optimizer is built with ninja, which is missing; install it with {install_package('ninja')}"
    return None


def mlx_problem() -> str | None:
    """Return what MLX needs and this machine lacks, or None."""
    if find_spec("mlx") is None:
        package = "mlx" if platform.system() == "Darwin" else "mlx[cpu]"
        return f"mlx is not installed; install it with {install_package(package)}{OR_TORCH}"
    return None


def pinning_problem() -> str | None:
    """Return why DeepSpeed's offload may fail to pin its memory on this machine, or None."""
    if "microsoft" not in platform.release().lower() or visible_device() is None:
        return None
    return (
        "Windows limits the host memory that WSL can pin, and memory.strategy = offload pins the optimizer's;"
        f" where it fails, use -s launch.deepspeed_config=FILE with {_UNPINNED} in it"
    )


def cuda_mismatch() -> str | None:
    """Return why torch cannot use this machine's GPU; None if it can, or if there is no GPU."""
    device = visible_device()
    if device is None:
        return None
    import pynvml as nv

    built_for = torch_cuda_version()
    try:
        number = int(nv.nvmlSystemGetCudaDriverVersion())
        major, minor = nv.nvmlDeviceGetCudaComputeCapability(device)
    except nv.NVMLError:
        return None
    driver = (number // 1000, number % 1000 // 10)
    install = _wheel_command(driver, major)
    if built_for is None:
        return f"this machine has an NVIDIA GPU, but torch is built without CUDA; {install}"
    if driver[0] < built_for[0]:  # a driver supports every minor version of its major version
        ours, theirs = (".".join(map(str, pair)) for pair in (built_for, driver))
        return f"torch is built for CUDA {ours}, the driver supports up to {theirs}; update the driver, or {install}"
    built = torch_architectures()
    if built and not runs_on(built, major, minor):
        return f"torch is built for {', '.join(built)}, the GPU is sm_{major}{minor}; {install}"
    return None


def _wheel_command(driver: tuple[int, int], major: int) -> str:
    """Return how to get a torch wheel that runs under a ``driver`` for that CUDA on a GPU of capability ``major``."""
    if driver < (12, 0):
        return "update the driver to one of CUDA 12.6 or later"
    cuda = "cu130" if driver[0] >= 13 else "cu128" if major >= _BLACKWELL else "cu126"
    return f"install a torch wheel with: {install_torch(cuda)}"
