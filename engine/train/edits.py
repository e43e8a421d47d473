"""Applies live edits to a spec: which keys can be edited while a run is active, and what an edit makes of the others.

Usually locked: the sequences of a step stay, micro must divide them and accum follows. Unlocked, sequences and context
may change too. That changes what a step is, so a replay has to make the same edit at the same step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from engine.events.types import Edit
from profiles.errors import SpecError, UserError
from profiles.printable import brief_key
from profiles.spec import RunSpec, check_value

EDITABLE = {
    "micro": "batch.micro",
    "accum": "batch.accum",
    "sequences": "batch.sequences",
    "context": "batch.context",
    "lr_scale": "optim.lr_scale",
    "val_every": "train.val_every",
    "save_every": "train.save_every",
    "sample_every": "train.sample_every",
    "eval_every": "train.eval_every",
    "stop_step": "train.stop_step",
    "steps": "train.steps",
    "decay": "optim.decay",
}
_CADENCE = ("val_every", "save_every", "sample_every", "eval_every", "stop_step", "steps")
UNLOCKED = ("sequences", "context")


def edited(spec: RunSpec, changes: Mapping[str, Any], unlock: bool = False) -> RunSpec:
    """Return ``spec`` with ``changes``, whose keys may be written with or without their table.

    Raises ``UserError`` naming the key that cannot be changed and why.
    """
    check_keys(changes, unlock)
    tables: dict[str, dict[str, Any]] = {"batch": {}, "optim": {}, "train": {}}
    for key, value in changes.items():
        name = key.rpartition(".")[2]
        full_key = EDITABLE[name]
        values = tables[full_key.partition(".")[0]]
        if name in values:
            raise UserError(f"set {full_key}: is given twice, as {name} and {full_key}; give one value")
        values[name] = check_value("set", full_key, value)
    if not changes:
        raise UserError("set: nothing to change; write for example micro=4")
    tables["batch"] = _batch(spec, tables["batch"], unlock)
    return spec.with_values("set", **tables)


def check_keys(keys: Iterable[str], unlock: bool = False) -> None:
    """Raise ``SpecError`` naming the first of ``keys`` that no active run lets an edit change, and why."""
    for key in keys:
        name = key.rpartition(".")[2]
        full_key = EDITABLE.get(name)
        if key.startswith("data."):
            raise SpecError(
                f"set {brief_key(key)}: the data of a run, weights too, changes at a resume: stop it, then "
                f"mla-tui launch --resume RUN --data-changed -s {brief_key(key)}=…"
            )
        if full_key is None or key not in (name, full_key):
            *others, last = EDITABLE
            raise SpecError(
                f"set {brief_key(key)}: cannot be changed while a run is active; {', '.join(others)} and {last} can"
            )
        if name in UNLOCKED and not unlock:
            raise SpecError(
                f"set {key}: changes tokens per step, so later losses are not comparable; if you mean it, add --unlock"
            )


def check_stop_step(spec: RunSpec, step: int) -> None:
    """Raise ``UserError`` where ``spec``, edited at ``step``, is to stop where it never will."""
    stop, steps = spec.train.stop_step, spec.train.steps
    if 0 < stop < step:
        raise UserError(f"set stop_step: {stop} is behind the run, which is at step {step}; use a later one")
    if stop > steps:
        raise UserError(f"set stop_step: {stop} is beyond the last step, {steps}; use a smaller one, or 0 for no stop")


def _batch(spec: RunSpec, requested: dict[str, int], unlock: bool) -> dict[str, int]:
    """``requested`` with accum, which is not stored, turned into sequences (unlocked) or micro (locked)."""
    if "accum" not in requested:
        return requested
    batch = {key: value for key, value in requested.items() if key != "accum"}
    accum, micro = requested["accum"], requested.get("micro")
    sequences = requested.get("sequences", spec.batch.sequences)
    if unlock and "sequences" not in requested:
        batch["sequences"] = check_value("set", "batch.sequences", accum * spec.ranks * (micro or spec.batch.micro))
        return batch
    if sequences % (accum * spec.ranks):
        raise UserError(f"set accum: {accum} does not divide the {sequences} sequences of a step")
    if micro is not None and micro * accum * spec.ranks != sequences:
        raise UserError(
            f"set micro={micro} accum={accum}: a step has {sequences} sequences, not {micro * accum * spec.ranks}"
        )
    batch["micro"] = check_value("set", "batch.micro", sequences // (accum * spec.ranks))
    return batch


def changed(old: RunSpec, new: RunSpec) -> dict[str, tuple[Any, Any]]:
    """Return ``{short key: (old, new)}`` of what an edit changed."""
    before, after = _by_short_key(old), _by_short_key(new)
    return {key: (before[key], after[key]) for key in EDITABLE if before[key] != after[key]}


def applied(spec: RunSpec, edit: Edit) -> RunSpec:
    """Return ``spec`` after an edit that the log says was applied.

    Where the micro of ``spec`` differs from the one the edit was made under, the largest below it that divides is used.
    """
    new = {key: pair[1] for key, pair in edit.changed.items() if key != "accum"}  # accum follows
    if "sequences" in new and "micro" not in new:
        per_rank = check_value("events.jsonl: edit", "batch.sequences", new["sequences"]) // spec.ranks
        new["micro"] = max(n for n in range(1, spec.batch.micro + 1) if per_rank % n == 0)
    return edited(spec, new, unlock=True) if new else spec


def live_values(spec: RunSpec) -> dict[str, Any]:
    """Return every stored value of ``spec`` that can be edited while a run is active, by its spec key."""
    values = {f"batch.{name}": getattr(spec.batch, name) for name in ("sequences", "micro", "context")}
    values |= {f"optim.{name}": getattr(spec.optim, name) for name in ("lr_scale", "decay")}
    return values | {f"train.{name}": getattr(spec.train, name) for name in _CADENCE}


def _by_short_key(spec: RunSpec) -> dict[str, Any]:
    values = live_values(spec) | {"batch.accum": spec.accum}
    return {short: values[key] for short, key in EDITABLE.items()}
