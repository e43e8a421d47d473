"""What a restart obeys of earlier attempts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.train.edit_history import EditHistory, pop_due


def edit(step: int, micro: int = 2, ok: bool = True) -> dict[str, Any]:
    return {"kind": "edit", "step": step, "changed": {"micro": [4, micro]}, "ok": ok}


def rewind(step: int, position: int = 0) -> dict[str, Any]:
    return {"kind": "rewind", "step": step, "cursor": {"position": position}}


def state(phase: str, id: str | None = None) -> dict[str, Any]:
    return {"kind": "state", "phase": phase, **({"id": id} if id else {})}


def test_a_later_one_at_an_earlier_step_replaces_its_own_kind_alone() -> None:
    past = EditHistory.of([edit(10), rewind(8, 1), edit(20), rewind(12, 2), edit(15), rewind(9, 3), edit(5, ok=False)])
    assert [record["step"] for record in past.edits] == [10, 15]
    assert [record["step"] for record in past.rewinds] == [8, 9]


def test_another_cut_at_an_earlier_step_leaves_what_later_ones_are() -> None:
    """Want of memory on the way back, which lowers micro, must not take back what a person has made of a step."""
    wider = {**edit(10), "changed": {"context": [32, 16], "micro": [4, 8], "accum": [2, 1]}}
    past = EditHistory.of([wider, {**edit(8), "by": "oom"}])
    assert [(r["step"], [*r["changed"]]) for r in past.edits] == [(8, ["micro"]), (10, ["context"])]
    past.supersede({"micro", "accum"})
    assert [[*r["changed"]] for r in past.edits] == [["context"]]
    past.supersede({"sequences", "accum"})  # another step: all that follows is of it
    assert not past.edits


def test_a_checkpoint_knows_of_the_rewinds_before_it_but_not_of_those_at_its_step() -> None:
    past = EditHistory.of([rewind(8), rewind(12, 1), rewind(12, 2), rewind(20)])
    past.drop_rewinds_before(12)
    assert [r["cursor"]["position"] for r in pop_due(past.rewinds, 12)] == [1, 2]  # the later one has the last word
    assert pop_due(past.rewinds, 19) == []
    assert len(pop_due(past.rewinds, 20)) == 1


@pytest.mark.parametrize(
    ("states", "paused"),
    [
        ([], False),
        ([state("paused", "a")], True),
        ([state("paused", "a"), state("running", "b")], False),
        ([state("paused", "a"), state("running", "b"), state("paused", "c")], True),
        # What nobody asked for decides nothing: the supervisor's words, and those of the attempt that came back.
        ([state("paused", "a"), state("recovering"), state("starting"), state("running"), state("paused")], True),
        ([state("running"), state("saving"), state("running")], False),
    ],
)
def test_the_last_that_was_asked_for_decides_whether_it_is_paused(states: list[dict[str, Any]], paused: bool) -> None:
    assert EditHistory.of([edit(1), *states, edit(2)]).paused is paused


@given(st.lists(st.tuples(st.sampled_from([edit, rewind]), st.integers(0, 20))), st.integers(0, 20))
def test_they_come_in_the_order_of_their_steps_each_once(made: list[Any], begin: int) -> None:
    past = EditHistory.of([make(step) for make, step in made])
    past.drop_rewinds_before(begin)
    for queue in (past.edits, past.rewinds):
        held = [record["step"] for record in queue]
        assert held == sorted(held)
        found = [record["step"] for step in range(begin, 21) for record in pop_due(queue, step)]
        assert found == held and not queue
