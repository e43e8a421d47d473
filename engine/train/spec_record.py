"""Builds the record of the values that edits can change: as they are now, and as a restart will make them again."""

from __future__ import annotations

from collections.abc import Iterable

from engine.events.planned import Planned
from engine.events.types import Edit, Spec
from engine.train.edits import applied, live_values
from profiles.spec import RunSpec


def spec_record(step: int, spec: RunSpec, edits: Iterable[Edit]) -> Spec:
    """Return the record of ``spec``, which holds from the step after ``step`` on; ``edits`` are still to be replayed.

    So what is said of the end of a restarted run is true before it has passed these edits. Raises ``UserError``.
    """
    values, later, planned = live_values(spec), spec, []
    before = values
    for edit in edits:
        later = applied(later, edit)
        after = live_values(later)
        planned.append(Planned(edit.step, {key: new for key, new in after.items() if new != before[key]}))
        before = after
    return Spec(step=step, values=values, accum=spec.accum, later=planned or None)
