"""The history of a run: bounded, true to every spike, and true to the latest attempt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.jobs import history
from engine.jobs.history import CAPACITY, SERIES, History, Series
from engine.jobs.log import LogWriter, read_all

finite = st.floats(-1e6, 1e6)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


@settings(deadline=None)
@given(st.lists(st.none() | finite, max_size=200), st.integers(0, 30), st.integers(2, 16))
def test_no_extreme_is_lost_and_the_mean_is_that_of_the_values(
    values: list[float | None], points: int, capacity: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "CAPACITY", capacity)  # a small one, so that short sequences are merged often
        series = Series()
        for x, value in enumerate(values):
            series.add(x, value, value)
            assert len(series.buckets) <= capacity
    answer = series.points(points)
    known = [v for v in values if v is not None]
    assert len(answer) <= max(1, points)
    assert [p[0] for p in answer] == sorted({p[0] for p in answer})
    if values:
        assert answer[-1][0] == len(values) - 1
    assert min((p[1] for p in answer if p[1] is not None), default=None) == min(known, default=None)
    assert max((p[3] for p in answer if p[3] is not None), default=None) == max(known, default=None)
    begin = 0
    for x, low, mean, high in answer:
        inside = [v for v in values[begin : x + 1] if v is not None]
        begin = x + 1
        assert (low, high) == (min(inside, default=None), max(inside, default=None))
        assert mean is None if not inside else mean == pytest.approx(sum(inside) / len(inside), abs=1e-6)


def test_a_window_holds_only_its_own_points() -> None:
    series = Series()
    for x in range(100):
        series.add(x, x, x)
    assert series.points(1000, since=10, until=12) == [[10, 10, 10, 10], [11, 11, 11, 11], [12, 12, 12, 12]]
    assert series.points(1000, since=200) == []
    assert series.points(1, since=90) == [[99, 90, 94.5, 99]]


def test_a_span_counts_with_both_its_ends() -> None:
    log = History()
    log.add({"t": 5.0, "kind": "telemetry", "rss": [10, 30], "ram_used": 7, "device_used": None})
    assert log.answer(["rss", "ram_used", "device_used"], 10) == {
        "rss": [[5.0, 10, 20, 30]],
        "ram_used": [[5.0, 7, 7, 7]],
        "device_used": [],
    }


def test_a_nan_is_a_gap_and_an_unknown_series_is_left_out() -> None:
    log = History()
    log.add({"kind": "step", "step": 1, "loss": None})
    assert log.answer(["loss", "nonsense"], 10) == {"loss": [[1, None, None, None]]}


def test_an_answer_for_twenty_thousand_steps_is_no_larger_than_for_five_thousand() -> None:
    log = History()
    sizes = []
    for step in range(1, 20_001):
        log.add({"kind": "step", "step": step, "loss": 1 / 3, "lr": 1e-4, "grad_norm": 7 / 3})
        if step in (5_000, 20_000):
            sizes.append(len(json.dumps(log.answer(list(SERIES), 500))))
    assert sizes[1] <= 1.1 * sizes[0]
    assert sizes[1] < 3 * 500 * 90
    assert all(len(series.buckets) <= CAPACITY for series in log.series.values())


# -- restarts

attempts = st.lists(st.tuples(st.none() | st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=5)


def write_attempts(path: Path, runs: list[tuple[int | None, int]]) -> dict[str, list[list[Any]]]:
    """Log attempts of (resumed from, steps done), as a trainer does; returns the truth, computed without cleverness."""
    truth: dict[str, dict[int, float]] = {"loss": {}, "val_loss": {}}
    path.unlink(missing_ok=True)
    for attempt, (resumed_from, count) in enumerate(runs, start=1):
        log = LogWriter(path, attempt)
        log.write("start", resumed_from=resumed_from)
        for series in truth.values():
            for x in [x for x in series if resumed_from is None or x > resumed_from]:
                del series[x]
        if resumed_from is None:
            log.write("val", step=0, loss=attempt + 0.25)
            truth["val_loss"][0] = attempt + 0.25
        for step in range((resumed_from or 0) + 1, (resumed_from or 0) + count + 1):
            log.write("step", step=step, loss=attempt + step / 100)
            truth["loss"][step] = attempt + step / 100
            if step % 3 == 0:
                log.write("val", step=step, loss=attempt + step / 50)
                truth["val_loss"][step] = attempt + step / 50
        log.close()
    return {name: [[x, y, y, y] for x, y in sorted(series.items())] for name, series in truth.items()}


@settings(deadline=None, max_examples=60)
@given(attempts)
def test_the_latest_attempt_wins(tmp_path_factory: pytest.TempPathFactory, runs: list[tuple[int | None, int]]) -> None:
    path = tmp_path_factory.mktemp("log") / "events.jsonl"
    reached, possible = 0, []  # an attempt resumes from a step that was reached before it
    for resumed_from, count in runs:
        start = None if resumed_from is None or not possible else min(resumed_from, reached) or None
        possible.append((start, count))
        reached = max(reached, (start or 0) + count)
    truth = write_attempts(path, possible)
    assert History.from_log(path)[0].answer(["loss", "val_loss"], 10_000) == truth

    live = History()  # record by record, as a supervisor does
    for at, record in read_all(path):
        if not live.add(record):
            live, _ = History.from_log(path, at + 1)
    assert live.answer(["loss", "val_loss"], 10_000) == truth


def test_a_restart_from_nothing_forgets_the_first_validation_too(path: Path) -> None:
    truth = write_attempts(path, [(None, 0), (None, 0)])
    assert truth["val_loss"] == [[0, 2.25, 2.25, 2.25]]
    assert History.from_log(path)[0].answer(["val_loss"], 10)["val_loss"] == truth["val_loss"]


def test_reading_on_from_the_given_offset_misses_nothing_and_repeats_nothing(path: Path) -> None:
    log = LogWriter(path, 1)
    assert History.from_log(path)[1] == 0
    log.write("start", resumed_from=None)
    for step in range(1, 6):
        log.write("step", step=step, loss=1.0)
    seen, end = History.from_log(path)
    log.write("step", step=6, loss=1.0)
    assert [p[0] for p in seen.answer(["loss"], 100)["loss"]] == [1, 2, 3, 4, 5]
    assert [r["step"] for _, r in read_all(path, end)] == [6]


def test_an_offset_bounds_what_is_read(path: Path) -> None:
    log = LogWriter(path, 1)
    for step in range(1, 6):
        log.write("step", step=step, loss=1.0)
    offsets = [at for at, _ in read_all(path)]
    seen, end = History.from_log(path, until=offsets[3])
    assert [p[0] for p in seen.answer(["loss"], 100)["loss"]] == [1, 2, 3]
    assert offsets[2] < end <= offsets[3]
