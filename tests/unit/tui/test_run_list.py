"""The filter of the list of runs."""

from __future__ import annotations

import pytest

from engine.events.status import Summary
from tui.app.state.run_list import FILTERS, SORT_ORDERS, filter_and_sort

RUNS = [
    Summary(id="1", name="small", phase="finished", loss=3.5, step=100, steps=100, profile="cpu_demo", host="a"),
    Summary(id="2", name="moe-small", phase="running", loss=4.5, val_loss=4.0, step=10, steps=100, context=2048),
    Summary(id="3", name="broken", phase="failed", step=5, profile="pretrain_5080"),
]


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("", "123"),
        ("small", "12"),
        ("small moe", "2"),
        ("loss<4", "1"),
        ("loss>=3.5 loss<=4.5", "12"),
        ("val=4", "2"),
        ("loss<", "123"),
        ("loss<x", ""),
        ("done>=50", "1"),
        ("context>1e3", "2"),
        ("phase:ended", "13"),
        ("phase:active", "2"),
        ("phase:attention", "3"),
        ("phase:fin", "1"),
        ("phase:", "123"),
        ("profile:cpu", "1"),
        ("name:moe step<20", "2"),
        ("host:b", ""),
        ("nothing<3", ""),
    ],
)
def test_words_of_the_filter(text: str, ids: str) -> None:
    found = filter_and_sort(RUNS, text, FILTERS[0], SORT_ORDERS[0])
    assert "".join(run.id for run in found) == ids
