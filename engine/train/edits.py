"""Changes to a living run.

Locked, as is usual, the sequences of a step stay: micro must divide them and accum follows. Unlocked, sequences and
context may change too; that changes what a step is, so a replay has to make the same change at the same step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from profiles.errors import UserError
from profiles.spec import RunSpec, check_value

EDITABLE = {
    "micro": "batch.micro",
    "accum": "batch.accum",
    "sequences": "batch.sequences",
    "context": "batch.context",
    "lr_scale": "optim.lr_scale",
    "val_every": "train.val_every",
    "save_every": "train.save_every",
    "stop_step": "train.stop_step",
}
UNLOCKED = ("sequences", "context")


def edited(spec: RunSpec, changes: Mapping[str, Any], unlock: bool = False) -> RunSpec:
    """``spec`` with ``changes``, whose keys may be written with or without their table.

    Raises ``UserError`` naming what cannot be.
    """
    tables: dict[str, dict[str, Any]] = {"batch": {}, "optim": {}, "train": {}}
    for key, value in changes.items():
        name = key.rpartition(".")[2]
        whole = EDITABLE.get(name)
        if whole is None or key not in (name, whole):
            *others, last = EDITABLE
            raise UserError(f"set {key}: cannot be changed while the run lives; {', '.join(others)} and {last} can")
        if name in UNLOCKED and not unlock:
            raise UserError(
                f"set {key}: changes what a step is, not only how it is cut; if that is meant, add --unlock"
            )
        tables[whole.partition(".")[0]][name] = check_value("set", whole, value)
    if not changes:
        raise UserError("set: nothing to change; write for example micro=4")
    tables["batch"] = _batch(spec, tables["batch"], unlock)
    return spec.with_values("set", **tables)


def _batch(spec: RunSpec, asked: dict[str, int], unlock: bool) -> dict[str, int]:
    """``asked`` with accum, which is a view, turned into sequences (unlocked) or micro (locked)."""
    if "accum" not in asked:
        return asked
    rest = {key: value for key, value in asked.items() if key != "accum"}
    accum, micro = asked["accum"], asked.get("micro")
    sequences = asked.get("sequences", spec.batch.sequences)
    if unlock and "sequences" not in asked:
        rest["sequences"] = check_value("set", "batch.sequences", accum * spec.ranks * (micro or spec.batch.micro))
        return rest
    if sequences % (accum * spec.ranks):
        raise UserError(f"set accum: {accum} does not divide the {sequences} sequences of a step")
    if micro is not None and micro * accum * spec.ranks != sequences:
        raise UserError(
            f"set micro={micro} accum={accum}: a step has {sequences} sequences, not {micro * accum * spec.ranks}"
        )
    rest["micro"] = check_value("set", "batch.micro", sequences // (accum * spec.ranks))
    return rest


def changed(old: RunSpec, new: RunSpec) -> dict[str, list[Any]]:
    """``{key: [old, new]}`` of what an edit changed."""
    before, after = live_values(old), live_values(new)
    return {key: [before[key], after[key]] for key in EDITABLE if before[key] != after[key]}


def applied(spec: RunSpec, record: Mapping[str, Any]) -> RunSpec:
    """``spec`` after an edit that the log holds as applied.

    Where ``spec`` has another micro by now than it was made under, the largest below it that divides is taken.
    """
    new = {key: pair[1] for key, pair in record["changed"].items() if key != "accum"}  # which follows
    if "sequences" in new and "micro" not in new:
        each = new["sequences"] // spec.ranks
        new["micro"] = max(n for n in range(1, spec.batch.micro + 1) if each % n == 0)
    return edited(spec, new, unlock=True) if new else spec


def live_values(spec: RunSpec) -> dict[str, Any]:
    """Every value of ``spec`` that can be edited while the run is active, by its short key."""
    flat = {f"batch.{name}": getattr(spec.batch, name) for name in ("sequences", "micro", "context")}
    flat |= {"batch.accum": spec.accum, "optim.lr_scale": spec.optim.lr_scale}
    flat |= {f"train.{name}": getattr(spec.train, name) for name in ("val_every", "save_every", "stop_step")}
    return {key: flat[whole] for key, whole in EDITABLE.items()}
