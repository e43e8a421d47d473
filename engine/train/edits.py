"""Changes to a living run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from profiles.errors import UserError
from profiles.spec import RunSpec, check_value

EDITABLE = ("micro", "accum")


def edited(spec: RunSpec, changes: Mapping[str, Any]) -> RunSpec:
    """``spec`` with ``changes`` to its batch. The sequences of a step stay: micro must divide them, accum follows.

    Raises ``UserError`` naming what cannot be.
    """
    values = {}
    for key, value in changes.items():
        name = key.removeprefix("batch.")
        if name not in EDITABLE:
            raise UserError(f"set {key}: cannot be changed while the run lives; {' and '.join(EDITABLE)} can")
        values[name] = check_value("set", f"batch.{name}", value)
    sequences = spec.batch.sequences
    micro = values.get("micro")
    if "accum" in values:
        accum = values["accum"]
        if sequences % (accum * spec.ranks):
            raise UserError(f"set accum: {accum} does not divide the {sequences} sequences of a step")
        if micro is not None and micro * accum * spec.ranks != sequences:
            raise UserError(
                f"set micro={micro} accum={accum}: a step has {sequences} sequences, not {micro * accum * spec.ranks}"
            )
        micro = check_value("set", "batch.micro", sequences // (accum * spec.ranks))
    if micro is None:
        raise UserError("set: nothing to change; write for example micro=4")
    return spec.with_batch(micro=micro)


def changed(old: RunSpec, new: RunSpec) -> dict[str, list[int]]:
    """``{key: [old, new]}`` of what an edit changed."""
    pairs = {"micro": [old.batch.micro, new.batch.micro], "accum": [old.accum, new.accum]}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
