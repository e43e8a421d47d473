"""Builds the DeepSpeed configuration of a run from its spec and, if given, the user's DeepSpeed JSON file.

The user's file must not contradict the spec. This module imports neither torch nor deepspeed: the configuration is
checked and printed before a launch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from profiles.errors import SpecError, UserError
from profiles.printable import LONGEST_VALUE, brief, brief_key, one_line
from profiles.reader import read_json
from profiles.spec import RunSpec

AUTO = "auto"
# Values per reduce and allgather bucket; every micro-batch allocates one buffer of this size. DeepSpeed's default of
# 500 million takes 1 GB of a 16 GB GPU.
BUCKET = 50_000_000
# Keys that the user's file may set freely: they change how values are moved and logged. Every other key that we set
# changes the result of a step.
USER_KEYS = (
    "zero_optimization.offload_optimizer.",
    "zero_optimization.reduce_bucket_size",
    "zero_optimization.allgather_bucket_size",
    "zero_optimization.overlap_comm",
    "zero_optimization.contiguous_gradients",
    "steps_per_print",
    "wall_clock_breakdown",
)
# DeepSpeed key → the spec key that sets it.
SPEC_KEYS = {
    "train_batch_size": "batch.sequences",
    "train_micro_batch_size_per_gpu": "batch.micro",
    "gradient_accumulation_steps": "batch.accum",
    "gradient_clipping": "optim.clip",
    "optimizer.type": "optim.name",
    "optimizer.params.lr": "optim.lr",
    "optimizer.params.eps": "optim.eps",
    "optimizer.params.weight_decay": "optim.weight_decay",
    "bf16.enabled": "train.precision",
    "zero_optimization.stage": "memory.strategy = offload, which is ZeRO-2",
    "zero_optimization.offload_optimizer.device": "memory.strategy",
}
# Features that the trainer implements itself or does not support with DeepSpeed.
UNSUPPORTED = ("scheduler", "fp16", "amp", "zero_optimization.offload_param", "pipeline", "data_efficiency")


def deepspeed_config(spec: RunSpec, *, bf16: bool, device: str) -> dict[str, Any]:
    """Return the config for ``deepspeed.initialize``: that of ``spec``, updated with the user's file.

    ``bf16``: the run's resolved precision. ``device``: cuda or cpu. Raise ``SpecError`` for a contradiction.
    """
    ours = generate(spec, bf16=bf16, device=device)
    if not spec.launch.deepspeed_config:
        return ours
    path = Path(spec.launch.deepspeed_config)
    given = read_user_config(path)
    flat_ours = dict(_flat(ours))
    if spec.optim.name == "muon":
        flat_ours["optimizer.type"] = "Muon"
    tables = {key.rpartition(".")[0] for key in flat_ours if "." in key}
    for key, value in _flat(given):
        if key in tables and value != AUTO:
            raise SpecError(f"{path}: {brief_key(key)}: {brief(value)} is not an object; write its keys in braces")
        if key in flat_ours and value != AUTO and not _same_type(flat_ours[key], value):
            raise SpecError(f"{path}: {key}: {brief(value)} is not of the type of {_quoted(flat_ours[key])}")
        if value == AUTO or (key.startswith(UNSUPPORTED) and not _enabled(given, key)):
            continue
        if key.startswith(UNSUPPORTED):
            raise SpecError(
                f"{path}: {key.partition('.')[0]}: is not supported, the trainer handles it itself; remove it"
            )
        user_may_set = key.startswith(USER_KEYS) and key != "zero_optimization.offload_optimizer.device"
        if key in flat_ours and not user_may_set and not _same(flat_ours[key], value):
            by = f" (set by {SPEC_KEYS[key]})" if key in SPEC_KEYS else ""
            raise SpecError(
                f"{path}: {key}: {_quoted(value)} contradicts the run's {_quoted(flat_ours[key])}{by};"
                " make them equal, or remove the key"
            )
    merged = _merge(ours, given)
    # AdamW under Muon too: it steps the other parameters, and DeepSpeed's Muon is not ours (``partitioned_muon.py``).
    merged["optimizer"]["type"] = ours["optimizer"]["type"]
    return merged


def generate(spec: RunSpec, *, bf16: bool, device: str) -> dict[str, Any]:
    """Return a ZeRO-2 config with the optimizer in host memory; the trainer runs the schedule and ends each step."""
    bucket = min(BUCKET, spec.model.config.params)
    return {
        "train_batch_size": spec.batch.sequences,
        "train_micro_batch_size_per_gpu": spec.batch.micro,
        "gradient_accumulation_steps": spec.accum,
        # The trainer marks the last micro-batch of a step itself, so that micro can be edited during the run.
        "managed_gradient_accumulation": False,
        "gradient_clipping": spec.optim.clip,
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": spec.optim.lr,
                "betas": [spec.optim.beta1, spec.optim.beta2],
                "eps": spec.optim.eps,
                "weight_decay": spec.optim.weight_decay,
                "torch_adam": False,  # DeepSpeedCPUAdam, which uses the CPU's vector units
                "adam_w_mode": True,
            },
        },
        "bf16": {"enabled": bf16},
        "zero_optimization": {
            "stage": 2,
            "offload_optimizer": {"device": "cpu", "pin_memory": device == "cuda"},
            "contiguous_gradients": True,
            "overlap_comm": False,
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": bucket,
        },
        "steps_per_print": 10**9,  # never: the trainer logs every step
    }


def read_user_config(path: Path) -> dict[str, Any]:
    """Read the user's DeepSpeed JSON file. Raise ``SpecError``."""
    try:
        return read_json(path)
    except FileNotFoundError as error:
        raise SpecError(f"launch.deepspeed_config: {path}: {error.strerror}; give the path of a JSON file") from None
    except UserError as error:
        raise SpecError(f"launch.deepspeed_config: {error}") from None


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _enabled(given: Mapping[str, Any], key: str) -> bool:
    """Return whether the table of ``key`` enables its feature; {"fp16": {"enabled": false}} does not."""
    table = given.get(key.partition(".")[0])
    return not (isinstance(table, Mapping) and table.get("enabled") is False)


def _same_type(ours: Any, theirs: Any) -> bool:
    """Return whether both are text, both true or false, both lists, or both numbers."""
    kinds = (str, bool, list, (int, float))  # bool before int, of which it is a subclass
    return next(
        isinstance(theirs, kind) and isinstance(theirs, bool) == (kind is bool)
        for kind in kinds
        if isinstance(ours, kind)
    )


def _same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, str) and isinstance(theirs, str):
        return ours.lower() == theirs.lower()
    return bool(ours == theirs) and isinstance(ours, bool) == isinstance(theirs, bool)


def _quoted(value: Any) -> str:
    return one_line(json.dumps(value), LONGEST_VALUE)


def _merge(base: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in override.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = _merge(merged[key], value)
        elif value != AUTO:
            merged[key] = value
    return merged
