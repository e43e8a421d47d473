"""Checks which edits, rewinds and pauses of earlier attempts a restart replays."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.events.types import Edit, Rewind, State
from engine.train.edit_history import EditHistory, pop_due


def edit(step: int, micro: int = 2, ok: bool = True) -> Edit:
    return Edit(step=step, changed={"micro": (4, micro)}, ok=ok)


def rewind(step: int, position: int = 0) -> Rewind:
    return Rewind(step=step, cursor={"position": position})


def state(phase: str, id: str | None = None) -> State:
    return State(phase=phase, id=id)


def test_a_new_record_at_an_earlier_step_replaces_later_ones_of_its_kind_only() -> None:
    history = EditHistory.of(
        [edit(10), rewind(8, 1), edit(20), rewind(12, 2), edit(15), rewind(9, 3), edit(5, ok=False)]
    )
    assert [record.step for record in history.edits] == [10, 15]
    assert [record.step for record in history.rewinds] == [8, 9]


def test_a_new_split_at_an_earlier_step_keeps_later_edits_of_the_step() -> None:
    """An out-of-memory error while steps are repeated lowers micro, but must not undo a user's edit of context."""
    wider = Edit(ok=True, step=10, changed={"context": (32, 16), "micro": (4, 8), "accum": (2, 1)})
    history = EditHistory.of([wider, Edit(ok=True, step=8, changed={"micro": (4, 2)}, by="oom")])
    assert [(r.step, [*r.changed]) for r in history.edits] == [(8, ["micro"]), (10, ["context"])]
    history.supersede({"micro", "accum"})
    assert [[*r.changed] for r in history.edits] == [["context"]]
    history.supersede({"sequences", "accum"})  # another batch: the edit of context is superseded too
    assert not history.edits


def test_a_checkpoint_includes_the_rewinds_before_its_step_but_not_those_at_it() -> None:
    history = EditHistory.of([rewind(8), rewind(12, 1), rewind(12, 2), rewind(20)])
    history.drop_rewinds_before(12)
    assert [(r.cursor or {})["position"] for r in pop_due(history.rewinds, 12)] == [
        1,
        2,
    ]  # the later one is applied last
    assert pop_due(history.rewinds, 19) == []
    assert len(pop_due(history.rewinds, 20)) == 1


@pytest.mark.parametrize(
    ("states", "paused"),
    [
        ([], False),
        ([state("paused", "a")], True),
        ([state("paused", "a"), state("running", "b")], False),
        ([state("paused", "a"), state("running", "b"), state("paused", "c")], True),
        # Only states that a user asked for count, not those of the supervisor or of the restarted attempt.
        ([state("paused", "a"), state("recovering"), state("starting"), state("running"), state("paused")], True),
        ([state("running"), state("saving"), state("running")], False),
    ],
)
def test_the_last_pause_or_resume_a_user_asked_for_decides_whether_it_is_paused(
    states: list[State], paused: bool
) -> None:
    assert EditHistory.of([edit(1), *states, edit(2)]).paused is paused


@given(st.lists(st.tuples(st.sampled_from([edit, rewind]), st.integers(0, 20))), st.integers(0, 20))
def test_records_are_due_once_in_the_order_of_their_steps(drawn: list[Any], start: int) -> None:
    history = EditHistory.of([make(step) for make, step in drawn])
    history.drop_rewinds_before(start)
    queues: tuple[deque[Any], ...] = (history.edits, history.rewinds)
    for queue in queues:
        kept = [record.step for record in queue]
        assert kept == sorted(kept)
        found = [record.step for step in range(start, 21) for record in pop_due(queue, step)]
        assert found == kept and not queue
