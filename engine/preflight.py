"""What can be known to go wrong before a run starts: everything here raises ``UserError`` and creates nothing."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from data.splits import check_data
from engine.checkpoints.checkpoint import facts, steps
from engine.execution.compiler import compile_problem
from engine.execution.deepspeed_config import deepspeed_config
from engine.execution.dependencies import cuda_mismatch, deepspeed_problem, mlx_problem
from engine.host.process import is_locked
from engine.memory.forecast import optimizer_bytes, weight_bytes
from engine.memory.hardware import detect_hardware
from engine.memory.strategies import with_strategy
from profiles.errors import UserError
from profiles.model_config import ModelConfig
from profiles.spec import RunSpec

WIDEST_FLASH_HEAD = 256  # of torch's kernels on a card


def check(spec: RunSpec, out: Path) -> None:
    """Hold ``spec`` against this version, its data and the place of its checkpoints. Raises ``UserError``."""
    check_backend(spec)
    check_data(spec)
    check_output_folder(spec, out)


def check_checkpoint_folder(out: Path, resume: Path | None) -> None:
    """Whether a run that goes on from ``resume`` (None: starts afresh) may write to ``out``. Raises ``UserError``.

    A folder holds the checkpoints of one history: a restart goes on from the newest one in it.
    """
    if is_locked(out / ".lock"):
        raise UserError(f"{out}: another run writes its checkpoints there; choose another --name or stop that run")
    held = steps(out)
    if held and (resume is None or resume.parent != out):
        raise UserError(
            f"{out}: holds checkpoints of an earlier run; choose another --name, or go on with --resume latest"
        )
    if held and resume is not None and held[-1] > int(facts(resume)["step"]):
        raise UserError(
            f"--resume {resume}: {out} holds later checkpoints, up to step {held[-1]};"
            " choose another --name, or go on with --resume latest"
        )


def resolved(spec: RunSpec) -> RunSpec:
    """The same run with strategy and backend chosen, and absolute paths: it must not depend on where it was launched
    from."""
    spec = with_strategy(spec, detect_hardware())
    return replace(
        spec,
        launch=replace(
            spec.launch,
            backend=_backend(spec) if spec.launch.backend == "auto" else spec.launch.backend,
            deepspeed_config=spec.launch.deepspeed_config
            and os.path.abspath(os.path.expanduser(spec.launch.deepspeed_config)),
        ),
        data=replace(spec.data, root=os.path.abspath(os.path.expanduser(spec.data.root))),
        train=replace(spec.train, out=os.path.abspath(os.path.expanduser(spec.train.out))),
    )


def _backend(spec: RunSpec) -> str:
    """What "auto" means here: MLX on Apple Silicon, DeepSpeed where its way of saving memory is asked for."""
    if platform.system() == "Darwin" and platform.machine() == "arm64" and mlx_problem() is None:
        return "mlx"
    return "deepspeed" if spec.memory.strategy == "offload" else "torch"


def check_backend(spec: RunSpec) -> None:
    """Refuse what no backend here can run, before anything is created. Raises ``UserError``."""
    if spec.launch.backend == "mlx":
        return _check_mlx(spec)
    if mismatch := cuda_mismatch():
        raise UserError(f"launch.backend: {spec.launch.backend}: {mismatch}")
    if spec.launch.backend == "deepspeed":
        _check_deepspeed(spec)
    elif spec.memory.strategy == "offload":
        raise UserError(
            "memory.strategy: offload is what --backend deepspeed does; use that,"
            " or -s memory.strategy=device or states8bit"
        )
    if spec.memory.strategy == "states8bit" and find_spec("torchao") is None:
        raise UserError(
            "memory.strategy: states8bit needs torchao, which is not installed;"
            " install mla-tui[torchao], or use -s memory.strategy=device"
        )
    device = "cuda" if detect_hardware().device == "cuda" else "cpu"
    if spec.train.compile == "on" and (missing := compile_problem(device)):
        raise UserError(f"train.compile: on, but {missing}, or use -s train.compile=auto")


def _check_deepspeed(spec: RunSpec) -> None:
    if missing := deepspeed_problem():
        raise UserError(f"launch.backend: deepspeed: {missing}")
    _check_allowed(
        "deepspeed, which steps AdamW on fp32 masters in host memory",
        ("memory.strategy", spec.memory.strategy, ("auto", "offload")),
        ("optim.name", spec.optim.name, ("adamw",)),
        ("train.precision", spec.train.precision, ("auto", "fp32", "bf16")),
    )
    if spec.launch.deepspeed_config:
        deepspeed_config(spec, bf16=spec.train.precision == "bf16", device="cpu")


def _check_mlx(spec: RunSpec) -> None:
    if missing := mlx_problem():
        raise UserError(f"launch.backend: mlx: {missing}")
    _check_allowed(
        "mlx",
        ("memory.strategy", spec.memory.strategy, ("auto", "device")),
        ("memory.checkpointing", spec.memory.checkpointing, ("auto", "none", "full")),
        ("optim.name", spec.optim.name, ("adamw",)),
        ("train.precision", spec.train.precision, ("auto", "fp32", "bf16")),
        ("train.attention", spec.train.attention, ("auto", "sdpa")),
    )
    if spec.ranks > 1:
        raise UserError(f"launch: {spec.ranks} ranks are not for --backend mlx; use nodes = 1 and gpus_per_node = 1")


def _check_allowed(backend: str, *choices: tuple[str, str, tuple[str, ...]]) -> None:
    for key, value, allowed in choices:
        if value not in allowed:
            raise UserError(
                f"{key}: {value} is not for --backend {backend}; use {' or '.join(allowed)}, or --backend torch"
            )


def slow_kernels(config: ModelConfig, device: str, attention: str) -> list[str]:
    """What of ``config`` runs on ``device``, but not by the fastest kernels, a line each.

    ``attention`` is what was chosen, or still "auto": a CPU may then have its own blocks, which take any width.
    """
    widest = WIDEST_FLASH_HEAD if device == "cuda" else config.v_head_dim
    if attention == "blocked" or (attention == "auto" and device != "cuda"):
        return []
    if config.qk_head_dim != config.v_head_dim:
        return [
            f"model.v_head_dim: {config.v_head_dim} is not qk_nope_head_dim + qk_rope_head_dim = {config.qk_head_dim};"
            " no flash attention kernel takes that, a slower one runs"
        ]
    if config.v_head_dim > widest:
        return [f"model.v_head_dim: {config.v_head_dim} is above {widest}, the widest of the flash attention kernels"]
    return []


def check_output_folder(spec: RunSpec, out: Path) -> None:
    """Whether checkpoints can be written below ``out``. Raises ``UserError``; creates nothing."""
    existing = out
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise UserError(f"train.out: {existing} is not a directory; choose another with -s train.out=DIR")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"train.out: {existing} is not writable; choose another with -s train.out=DIR")
    needed = (weight_bytes(spec) + optimizer_bytes(spec)) * 2  # the new one is written beside the old one
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise UserError(
            f"train.out: {existing} has {free / 1e9:.1f} GB free, two checkpoints need {needed / 1e9:.1f} GB;"
            " make room or choose another with -s train.out=DIR"
        )
