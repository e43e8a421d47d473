"""The data cursor: advancing over epochs, segments after a context edit, and JSON."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.cursor import Cursor, Segment
from profiles.errors import UserError

STEPS = st.lists(st.tuples(st.integers(1, 50), st.sampled_from([64, 128, 256])), max_size=12)
PER_EPOCH = {64: 40, 128: 20, 256: 10}


def walk(steps: list[tuple[int, int]]) -> Cursor:
    cursor = Cursor(seed=3, context=64)
    for n, context in steps:
        cursor = cursor.at_context(context).advance(n, PER_EPOCH[context])
    return cursor


@given(STEPS)
def test_a_cursor_survives_json(steps: list[tuple[int, int]]) -> None:
    cursor = walk(steps)
    assert Cursor.from_dict(json.loads(json.dumps(cursor.to_dict()))) == cursor


@given(st.integers(0, 99), st.integers(0, 99), st.integers(1, 30))
def test_two_advances_are_one(a: int, b: int, per_epoch: int) -> None:
    cursor = Cursor(seed=1, context=8)
    assert cursor.advance(a, per_epoch).advance(b, per_epoch) == cursor.advance(a + b, per_epoch)


def test_the_position_wraps_into_the_next_epoch() -> None:
    cursor = Cursor(seed=1, context=8).advance(10, 10)
    assert (cursor.epoch, cursor.position) == (1, 0)
    assert cursor.advance(23, 10) == Cursor(seed=1, context=8, epoch=3, position=3, consumed=33)


@given(STEPS)
def test_tokens_count_every_sequence_at_its_own_context(steps: list[tuple[int, int]]) -> None:
    assert walk(steps).tokens == sum(n * context for n, context in steps)


@given(STEPS)
def test_segments_are_enough_to_replay(steps: list[tuple[int, int]]) -> None:
    cursor = walk(steps)
    replayed = Cursor(seed=3, context=64)
    for segment in (*cursor.segments, Segment(cursor.context, cursor.consumed)):
        replayed = replayed.at_context(segment.context).advance(segment.sequences, PER_EPOCH[segment.context])
    assert replayed == cursor


def test_a_context_edit_starts_a_new_epoch() -> None:
    cursor = Cursor(seed=1, context=64).advance(3, 40).at_context(128)
    assert (cursor.epoch, cursor.position, cursor.consumed) == (1, 0, 0)
    assert cursor.segments == (Segment(64, 3),)
    back = cursor.advance(5, 20).at_context(64)
    assert back.epoch == 2
    assert back.segments == (Segment(64, 3), Segment(128, 5))


def test_an_edit_at_the_end_of_an_epoch_skips_no_epoch() -> None:
    assert Cursor(seed=1, context=64).advance(40, 40).at_context(128).epoch == 1


def test_an_edit_to_the_same_context_adds_no_segment() -> None:
    cursor = Cursor(seed=1, context=64).advance(3, 40)
    assert cursor.at_context(64) == cursor
    assert Cursor(seed=1, context=64).at_context(128) == Cursor(seed=1, context=128)


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"position": -1}, "position: -1"),
        ({"epoch": "two"}, "epoch: 'two'"),
        ({"consumed": True}, "consumed: True"),
        ({"context": 0}, "context: 0"),
        ({"seed": None}, "seed: None"),
        ({"segments": 5}, "segments: 5"),
        ({"segments": [{"context": 64}]}, "sequences: None"),
        ({"segments": ["x"]}, "entry: 'x'"),
        ({"shuffle": 1}, "shuffle: 1"),
    ],
)
def test_a_damaged_cursor_is_refused_in_one_line(change: dict[str, Any], names: str) -> None:
    with pytest.raises(UserError) as caught:
        Cursor.from_dict(Cursor(seed=1, context=64).to_dict() | change)
    assert names in str(caught.value)
    assert "\n" not in str(caught.value)
