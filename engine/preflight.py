"""Checks before a launch that a run can start: backend, data, memory, and checkpoint folder.

Every check raises ``UserError`` and creates nothing.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from data.questions import read_questions
from data.splits import check_ids, tokenizer_of
from data.tokenizer import id_count, load_tokenizer
from engine.checkpoints.checkpoint import metadata, steps
from engine.execution.compiler import compile_problem
from engine.execution.deepspeed_config import deepspeed_config
from engine.execution.dependencies import cuda_mismatch, deepspeed_problem, mlx_problem, pinning_problem
from engine.host.process import is_locked
from engine.memory.calibration import load_past_runs
from engine.memory.hardware import Hardware, detect_hardware
from engine.memory.launch_fit import launch_fit
from engine.memory.search.choose import choose, open_keys
from engine.memory.states import checkpoint_bytes
from profiles.errors import ForceNeeded, UserError
from profiles.install_command import install_extra
from profiles.model_config import ModelConfig
from profiles.paths import default_home, expand
from profiles.printable import brief
from profiles.spec import AUTO, RunSpec

MAX_FLASH_HEAD_DIM = 256  # of torch's flash attention kernels on a GPU
_SECONDS_FOR_IDS = 1.0  # a split; a launch waits for it


def check_spec(spec: RunSpec, out: Path, notify: Callable[[str], None] = lambda line: None) -> None:
    """Check the backend of ``spec``, its data, and that checkpoints can be written to ``out``. Raise ``UserError``.

    ``notify`` gets a line if the data is so large that only a part of its ids was looked at.
    """
    check_backend(spec)
    check_samples(spec)
    check_evals(spec)
    checked = check_ids(spec, _SECONDS_FOR_IDS)
    if checked < 1:
        notify(
            f"data: looked at {checked:.1%} of the ids, all within the vocabulary; the run checks each batch it reads"
        )
    check_output_folder(spec, out)


def check_checkpoint_folder(out: Path, resume: Path | None) -> None:
    """Check that a run that resumes from ``resume`` (None: starts new) may write to ``out``. Raise ``UserError``.

    A folder holds the checkpoints of one run only, because a restart resumes from the newest one in it.
    """
    if is_locked(out / ".lock"):
        raise UserError(f"{out}: another run writes its checkpoints there; choose another --name or stop that run")
    existing, continued = steps(out), f"--resume {shlex.quote(str(out))}"
    if existing and (resume is None or resume.parent != out):
        raise UserError(
            f"{out}: holds checkpoints of an earlier run; choose another --name, or continue it with {continued}"
        )
    if existing and resume is not None and existing[-1] > int(metadata(resume)["step"]):
        raise UserError(
            f"--resume {resume}: {out} holds later checkpoints, up to step {existing[-1]};"
            f" choose another --name, or continue from the last one with {continued}"
        )


def resolve_spec(spec: RunSpec, hardware: Hardware | None = None) -> RunSpec:
    """Return ``spec`` with everything that is "auto" chosen for ``hardware`` (None: what is free of this machine now).

    Paths become absolute, so that the run does not depend on the directory it was launched from.
    """
    hardware = hardware or detect_hardware(spec.launch.gpus_per_node)
    chosen = choose(spec, hardware, load_past_runs(hardware, default_home()))
    backend = ["launch.backend"] if spec.launch.backend == AUTO else []
    left = {*open_keys(chosen)}
    return replace(
        chosen,
        launch=replace(
            spec.launch,
            backend=_backend(chosen) if spec.launch.backend == "auto" else spec.launch.backend,
            deepspeed_config=spec.launch.deepspeed_config
            and str(expand(spec.launch.deepspeed_config, "launch.deepspeed_config")),
        ),
        data=replace(spec.data, root=str(expand(spec.data.root, "data.root"))),
        train=replace(
            chosen.train,
            out=str(expand(spec.train.out, "train.out")),
            eval_tasks=tuple(str(expand(text, "train.eval_tasks")) for text in spec.train.eval_tasks),
        ),
        resolved=(*spec.resolved, *backend, *(key for key in open_keys(spec) if key not in left)),
    )


def _backend(spec: RunSpec) -> str:
    """Return the backend for "auto": MLX on Apple Silicon, DeepSpeed for memory.strategy = offload, else torch.

    MLX has no Muon.
    """
    mac = platform.system() == "Darwin" and platform.machine() == "arm64"
    if mac and spec.optim.name != "muon" and mlx_problem() is None:
        return "mlx"
    return "deepspeed" if spec.memory.strategy == "offload" else "torch"


def check_backend(spec: RunSpec) -> None:
    """Check that the backend of ``spec`` is installed and supports its settings. Raise ``UserError``."""
    if spec.launch.backend == "mlx":
        return _check_mlx(spec)
    if mismatch := cuda_mismatch():
        raise UserError(f"launch.backend: {spec.launch.backend}: {mismatch}")
    if spec.launch.backend == "deepspeed":
        _check_deepspeed(spec)
    elif spec.memory.strategy == "offload":
        raise UserError(f"memory.strategy: offload needs --backend deepspeed; {_instead_of_offload(spec)}")
    if spec.memory.strategy == "states8bit" and find_spec("torchao") is None:
        raise UserError(
            "memory.strategy: states8bit needs torchao, which is not installed;"
            f" install it with {install_extra('torchao')}, or use -s memory.strategy=device"
        )
    device = "cuda" if detect_hardware().device == "cuda" else "cpu"
    if spec.train.compile == "on" and (missing := compile_problem(device)):
        raise UserError(f"train.compile: on, but {missing}, or use -s train.compile=auto")


def _instead_of_offload(spec: RunSpec) -> str:
    """Return what the torch backend, or another one, has for a ``spec`` with offload."""
    adamw, allow = spec.optim.name == "adamw", spec.memory.allow
    strategies = ["device", *(["states8bit"] if adamw and (not allow or "states8bit" in allow) else [])]
    other = "use that, or" if spec.train.precision != "bf16_sr" else "use"
    return f"{other} -s memory.strategy={' or '.join(strategies)}"


def check_tokenizer(spec: RunSpec) -> None:
    """Check that the model has every id of the data's tokenizer, if the data has one. Raise ``UserError``.

    The shards may hold none of the ids beyond the vocabulary; whoever uses the model later meets them in a prompt.
    """
    path, vocabulary = tokenizer_of(spec), spec.model.config.vocab_size
    if path.exists() and (ids := id_count(load_tokenizer(path))) > vocabulary:
        raise UserError(
            f"{path}: has ids up to {ids - 1}, model.vocab_size is {vocabulary}; use -s model.vocab_size={ids} or more,"
            " or replace it with the one that packed the data"
        )


def check_samples(spec: RunSpec) -> None:
    """Check that the run can sample text, if it is to: backend, tokenizer and prompts. Raise ``UserError``."""
    if not spec.train.sample_every:
        return
    if spec.launch.backend == "mlx":
        _check_allowed("mlx", ("train.sample_every", spec.train.sample_every, (0,)))
    path, vocabulary = tokenizer_of(spec), spec.model.config.vocab_size
    if not path.exists():
        raise UserError(
            f"train.sample_every: {spec.train.sample_every} needs {path}, which is missing; copy the one that packed"
            " the data there, or use -s train.sample_every=0"
        )
    tokenizer = load_tokenizer(path)
    for prompt in spec.train.sample_prompts:
        if (highest := max(tokenizer.encode(prompt).ids, default=0)) >= vocabulary:
            raise UserError(
                f"train.sample_prompts: {brief(prompt)} has the token id {highest}, model.vocab_size is {vocabulary};"
                " use the tokenizer that packed the data, or another prompt"
            )


def check_evals(spec: RunSpec) -> None:
    """Check that the run can score questions, if it is to: backend, tokenizer and files. Raise ``UserError``."""
    train, path = spec.train, tokenizer_of(spec)
    if train.keep_best == "eval_acc" and not train.eval_every:
        raise UserError("train.keep_best: eval_acc needs evaluations; set train.eval_every, or keep_best = val_loss")
    if not train.eval_every:
        return
    if spec.launch.backend == "mlx":
        _check_allowed("mlx", ("train.eval_every", train.eval_every, (0,)))
    if not train.eval_tasks:
        raise UserError("train.eval_tasks: is empty; name files of questions, or use -s train.eval_every=0")
    for text in train.eval_tasks:
        file = expand(text, "train.eval_tasks")
        if not os.path.isfile(file):
            raise UserError(f"train.eval_tasks: {text} is no regular file; name a file of JSON lines")
        read_questions(file, None)
    if not path.exists():
        raise UserError(
            f"train.eval_every: {train.eval_every} needs {path}, which is missing; copy the one that packed the data"
            " there, or use -s train.eval_every=0"
        )


def check_memory(
    spec: RunSpec, home: Path, notify: Callable[[str], None], *, insists: bool, hardware: Hardware | None = None
) -> None:
    """Tell ``notify`` in one line where the resolved ``spec`` needs more memory than is free.

    Raises ``ForceNeeded`` where it cannot fit at all, unless the user ``insists``. ``home`` has the peaks of past runs.
    ``hardware``: what is free when the run starts, where that is not what is free now.
    """
    hardware = hardware or detect_hardware(spec.launch.gpus_per_node)
    fit = launch_fit(spec, hardware, load_past_runs(hardware, home))
    if not (fit.possible or insists):
        raise ForceNeeded(fit.text)
    if fit.text:
        notify(fit.text)
    if spec.memory.strategy == "offload" and (problem := pinning_problem()):
        notify(problem)


def report_slow(spec: RunSpec, notify: Callable[[str], None]) -> None:
    """Tell ``notify`` in one line why torch.compile, which ``train.compile = "auto"`` takes where it can, is off."""
    device = "cuda" if detect_hardware().device == "cuda" else "cpu"
    if spec.train.compile == "auto" and spec.launch.backend != "mlx" and (problem := compile_problem(device)):
        notify(f"train.compile: auto is off on this machine, and the run slower: {problem}")


def _check_deepspeed(spec: RunSpec) -> None:
    if missing := deepspeed_problem():
        raise UserError(f"launch.backend: deepspeed: {missing}")
    _check_allowed(
        "deepspeed, which keeps fp32 master weights in host memory",
        ("memory.strategy", spec.memory.strategy, ("auto", "offload")),
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
        ("optim.ema", spec.optim.ema, (0,)),
        ("train.precision", spec.train.precision, ("auto", "fp32", "bf16")),
        ("train.attention", spec.train.attention, ("auto", "sdpa")),
    )
    if spec.ranks > 1:
        raise UserError(
            f"launch: {spec.ranks} ranks are not supported by --backend mlx; use nodes = 1 and gpus_per_node = 1"
        )


def _check_allowed(backend: str, *choices: tuple[str, object, tuple[object, ...]]) -> None:
    for key, value, allowed in choices:
        if value not in allowed:
            raise UserError(
                f"{key}: {value} is not supported by --backend {backend};"
                f" use -s {key}={' or '.join(map(str, allowed))}, or --backend torch"
            )


def slow_kernels(config: ModelConfig, device: str, attention: str) -> list[str]:
    """Return one line for each part of ``config`` that cannot use the fastest kernels of ``device``.

    ``attention`` is the resolved choice, or "auto": a CPU may then use blocked attention, which takes any head width.
    """
    widest = MAX_FLASH_HEAD_DIM if device == "cuda" else config.v_head_dim
    if attention == "blocked" or (attention == "auto" and device != "cuda"):
        return []
    if config.qk_head_dim != config.v_head_dim:
        return [
            f"model.v_head_dim: {config.v_head_dim} is not qk_nope_head_dim + qk_rope_head_dim = {config.qk_head_dim};"
            " no flash attention kernel supports that, a slower one is used"
        ]
    if config.v_head_dim > widest:
        return [
            f"model.v_head_dim: {config.v_head_dim} is above {widest}, the most that flash attention kernels support"
        ]
    return []


def check_output_folder(spec: RunSpec, out: Path) -> None:
    """Check that checkpoints can be written below ``out`` and fit on the disk. Raise ``UserError``."""
    existing = out
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise UserError(f"train.out: {existing} is not a directory; choose another with -s train.out=DIR")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"train.out: {existing} is not writable; choose another with -s train.out=DIR")
    needed = checkpoint_bytes(spec) * 2  # the new one is written before the old one is removed
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise UserError(
            f"train.out: {existing} has {free / 1e6:,.1f} MB free, two checkpoints need {needed / 1e6:,.1f} MB;"
            " free some space or choose another with -s train.out=DIR"
        )
