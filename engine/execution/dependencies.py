"""Whether the libraries a backend needs can work here. None of them is imported: the answer comes before a launch."""

from __future__ import annotations

import platform
import re
import shutil
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from engine.execution.compiler import compile_problem
from profiles.nvml import visible_device

# Before, gradients are dropped where the optimizer is offloaded and a window has three micro-batches or more.
OLDEST_DEEPSPEED = (0, 19, 5)


def deepspeed_problem() -> str | None:
    """What DeepSpeed's CPU optimizer would need and does not find; None where nothing is.

    It is C++ that is built at its first use, on a machine with a card as on one without: no CUDA toolkit is asked for.
    """
    if platform.system() != "Linux":
        return f"DeepSpeed runs on Linux, this is {platform.system()}; use --backend torch, or mlx on a Mac"
    try:
        installed = version("deepspeed")
    except PackageNotFoundError:
        return "deepspeed is not installed; install mla-tui[deepspeed], or use --backend torch"
    if tuple(int(n) for n in re.findall(r"\d+", installed)[:3]) < OLDEST_DEEPSPEED:
        return f"deepspeed {installed} loses gradients here; install deepspeed>={'.'.join(map(str, OLDEST_DEEPSPEED))}"
    if missing := compile_problem("cpu"):
        return f"its optimizer is built at the first use, but {missing}"
    if find_spec("ninja") is None and shutil.which("ninja") is None:
        return "its optimizer is built by ninja, which is missing; install it with pip install ninja"
    return None


def mlx_problem() -> str | None:
    """What MLX would need and does not find; None where nothing is."""
    if find_spec("mlx") is None:
        package = "mlx" if platform.system() == "Darwin" else "'mlx[cpu]'"
        return f"mlx is not installed; install it with pip install {package}, or use --backend torch"
    return None


def cuda_mismatch() -> str | None:
    """Why torch cannot use the card that this machine has; None where it can, or where there is no card."""
    if visible_device() is None:
        return None
    import pynvml as nv

    built_for = torch_cuda_version()
    if built_for is None:
        return "there is an NVIDIA card, but this torch is built without CUDA; install a torch wheel with CUDA"
    try:
        number = int(nv.nvmlSystemGetCudaDriverVersion())
    except nv.NVMLError:
        return None
    driver = (number // 1000, number % 1000 // 10)
    if driver[0] < built_for[0]:  # a driver runs every minor version of its major one
        ours, theirs = (".".join(map(str, pair)) for pair in (built_for, driver))
        return (
            f"torch is built for CUDA {ours}, the driver goes up to {theirs};"
            f" update the driver, or install a torch wheel for CUDA {driver[0]}"
        )
    return None


def torch_cuda_version() -> tuple[int, int] | None:
    """The CUDA version that the installed torch is built for, read without importing it."""
    found = find_spec("torch")
    if found is None or found.origin is None:
        return None
    text = (Path(found.origin).parent / "version.py").read_text(encoding="utf-8")
    match = re.search(r"^cuda\b.*?=\s*['\"](\d+)\.(\d+)", text, re.MULTILINE)
    return (int(match[1]), int(match[2])) if match else None
