"""The DeepSpeed configuration of a run: made from its spec, or a person's own file that must not contradict it.

No torch and no deepspeed: it is printed and checked before anything is launched.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from profiles.errors import SpecError
from profiles.spec import RunSpec

AUTO = "auto"
# Values gathered before they leave: a buffer of so many is allotted for every micro-batch. DeepSpeed's own 500 million
# are 1 GB of a 16 GB card.
BUCKET = 50_000_000
BETAS = [0.9, 0.95]
EPS = 1e-8
# What a person's file may ask for otherwise than we would: how the same numbers are moved, kept and shown. All else
# that we set changes what a step is.
FREE = (
    "zero_optimization.offload_optimizer.",
    "zero_optimization.reduce_bucket_size",
    "zero_optimization.allgather_bucket_size",
    "zero_optimization.overlap_comm",
    "zero_optimization.contiguous_gradients",
    "steps_per_print",
    "wall_clock_breakdown",
)
# Where a key of the spec says the same.
OURS = {
    "train_batch_size": "batch.sequences",
    "train_micro_batch_size_per_gpu": "batch.micro",
    "gradient_accumulation_steps": "batch.accum",
    "gradient_clipping": "optim.clip",
    "optimizer.type": "optim.name",
    "optimizer.params.lr": "optim.lr",
    "optimizer.params.weight_decay": "optim.weight_decay",
    "bf16.enabled": "train.precision",
    "zero_optimization.stage": "ZeRO-2, which memory.strategy = offload means",
    "zero_optimization.offload_optimizer.device": "memory.strategy",
}
# Two hands on one wheel: the schedule, the checkpoints and the other precisions are the trainer's.
NOT_FOR_US = ("scheduler", "fp16", "amp", "zero_optimization.offload_param", "pipeline", "data_efficiency")


def deepspeed_config(spec: RunSpec, *, bf16: bool, device: str) -> dict[str, Any]:
    """What ``deepspeed.initialize`` is given for ``spec``, with the keys of a person's file laid over it.

    ``bf16``: the run's precision, resolved. ``device``: cuda or cpu. Raises ``SpecError`` naming a contradiction.
    """
    ours = generated(spec, bf16=bf16, device=device)
    if not spec.launch.deepspeed_config:
        return ours
    path = Path(spec.launch.deepspeed_config)
    given = read(path)
    flat_ours = dict(_flat(ours))
    for key, value in _flat(given):
        if value == AUTO or (key.startswith(NOT_FOR_US) and not _wanted(given, key)):
            continue
        if key.startswith(NOT_FOR_US):
            raise SpecError(f"{path}: {key.partition('.')[0]}: the trainer does this itself; leave it out")
        free = key.startswith(FREE) and key != "zero_optimization.offload_optimizer.device"
        if key in flat_ours and not free and not _same(flat_ours[key], value):
            by = f" by {OURS[key]}" if key in OURS else ""
            raise SpecError(
                f"{path}: {key}: {json.dumps(value)} contradicts the run, where it is {json.dumps(flat_ours[key])}{by};"
                " make them agree, or leave the key out"
            )
    return _laid_over(ours, given)


def generated(spec: RunSpec, *, bf16: bool, device: str) -> dict[str, Any]:
    """ZeRO-2 with the optimizer in host memory; the trainer owns the schedule and the end of a window."""
    bucket = min(BUCKET, spec.model.config.params)
    return {
        "train_batch_size": spec.batch.sequences,
        "train_micro_batch_size_per_gpu": spec.batch.micro,
        "gradient_accumulation_steps": spec.accum,
        # The trainer says where a window ends, so that micro can be edited while the run lives.
        "managed_gradient_accumulation": False,
        "gradient_clipping": spec.optim.clip,
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": spec.optim.lr,
                "betas": BETAS,
                "eps": EPS,
                "weight_decay": spec.optim.weight_decay,
                "torch_adam": False,  # its own, which steps on the host's vector units
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
        "steps_per_print": 10**9,  # the log is ours
    }


def read(path: Path) -> dict[str, Any]:
    """A person's own file. Raises ``SpecError``."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"launch.deepspeed_config: {path}: {error.strerror}; give the path of a JSON file") from None
    except ValueError as error:
        raise SpecError(f"{path}: is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise SpecError(f"{path}: is not a JSON object")
    return content


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _wanted(given: Mapping[str, Any], key: str) -> bool:
    """Whether a table is more than switched off: {"fp16": {"enabled": false}} asks for nothing."""
    table = given.get(key.partition(".")[0])
    return not (isinstance(table, Mapping) and table.get("enabled") is False)


def _same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, str) and isinstance(theirs, str):
        return ours.lower() == theirs.lower()
    return bool(ours == theirs) and isinstance(ours, bool) == isinstance(theirs, bool)


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = _laid_over(merged[key], value)
        elif value != AUTO:
            merged[key] = value
    return merged
