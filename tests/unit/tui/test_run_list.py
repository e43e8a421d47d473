"""The filter of the list of runs."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.events.status import Summary
from profiles.errors import UserError
from tui.app.state.run_filter import parse_filter
from tui.app.state.run_list import FILTERS, SORT_ORDERS, filter_and_sort

RUNS = [
    Summary(id="1", name="small", phase="finished", loss=3.5, step=100, steps=100, profile="cpu_demo", host="a"),
    Summary(id="2", name="moe-small", phase="running", loss=4.5, val_loss=4.0, step=10, steps=100, context=2048),
    Summary(id="4", name="hung", phase="running", stalled="no progress for 48 s", step=7),
    Summary(id="3", name="broken", phase="failed", step=5, profile="pretrain_5080", note="bad disk"),
]
RUNS[0].lr, RUNS[1].tags = 3e-3, ("MoE",)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("", "1243"),
        ("small", "12"),
        ("small moe", "2"),
        ("loss<4", "1"),
        ("loss>=3.5 loss<=4.5", "12"),
        ("val=4", "2"),
        ("lr>=1e-3", "1"),
        ("tag:moe", "2"),
        ("tag:mo", ""),
        ("tag:#moe", "2"),
        ("#mo", "2"),
        ("mo disk", ""),
        ("DISK", "3"),
        ("done>=50", "1"),
        ("context>1e3", "2"),
        ("phase:ended", "13"),
        ("phase:active", "24"),
        ("phase:attention", "43"),
        ("phase:stalled", "4"),
        ("stalled", "4"),
        ("tok/s>0", ""),
        ("phase:fin", "1"),
        ("profile:cpu", "1"),
        ("name:moe step<20", "2"),
        ("host:b", ""),
    ],
)
def test_words_of_the_filter(text: str, ids: str) -> None:
    found = filter_and_sort(RUNS, parse_filter(text), FILTERS[0], SORT_ORDERS[0])
    assert "".join(run.id for run in found) == ids


@pytest.mark.parametrize(
    ("word", "allowed"),
    [
        ("loss<", "'' is not a number"),
        ("loss<x", "'x' is not a number"),
        ("loss<nan", "'nan' is not a number"),
        ("losss<3", "loss, val, bits, lr"),
        ("phase:over", "active, ended, attention, stalled"),
        ("tag:", "after the colon"),
        ("color:red", "phase, tag, name"),
    ],
)
def test_a_wrong_word_is_named_with_what_is_allowed(word: str, allowed: str) -> None:
    with pytest.raises(UserError) as error:
        parse_filter(f"small {word} loss<4")
    assert str(error.value).startswith(f"filter {word!r}: ") and allowed in str(error.value)


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_a_comparison_and_its_opposite_split_the_runs(loss: float, limit: float) -> None:
    run = Summary(id="1", phase="running", loss=loss)
    below, above, equal = (parse_filter(f"loss{sign}{limit!r}")(run) for sign in ("<", ">", "="))
    assert [below, above, equal].count(True) == 1
    assert parse_filter(f"loss<={limit!r}")(run) is (below or equal)


@given(st.text(max_size=30))
def test_any_text_is_a_filter_or_one_printable_line(text: str) -> None:
    try:
        matches = parse_filter(text)
    except UserError as error:
        assert str(error).isprintable() and str(error).startswith("filter ")
    else:
        for run in RUNS:
            words = text.split()
            assert matches(run) is all(parse_filter(word)(run) for word in words)


@pytest.mark.parametrize("loss", [None, math.nan])
def test_a_run_without_the_number_never_matches(loss: float | None) -> None:
    run = Summary(id="1", phase="running", loss=loss)
    assert not any(parse_filter(f"loss{sign}1")(run) for sign in ("<", "<=", ">", ">=", "="))
