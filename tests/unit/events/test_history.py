"""The history of a run: bounded, keeps every spike, and keeps the latest attempt of repeated steps."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.events import history
from engine.events import series as series_module
from engine.events.history import History
from engine.events.log import LogWriter, read_all
from engine.events.metrics import BY_STEP, SERIES
from engine.events.series import CAPACITY, Series
from engine.events.types import Event, Start, Step, Telemetry, Val
from tests.events import of_kind, points

finite = st.floats(-1e6, 1e6)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def numbered(events: list[Event]) -> list[tuple[int, Event]]:
    return list(enumerate(events))


@settings(deadline=None)
@given(st.lists(st.none() | finite, max_size=200), st.integers(0, 30), st.integers(2, 16), st.integers(1, 50))
def test_extremes_and_means_are_exact(values: list[float | None], count: int, capacity: int, chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(series_module, "CAPACITY", capacity)  # a small one, so that short sequences are merged often
        series = Series()
        for begin in range(0, len(values), chunk):
            part = values[begin : begin + chunk]
            xs = range(begin, begin + len(part))
            series.extend(xs, part, part, xs)
            assert len(series) <= capacity
    answer = series.buckets(count)
    known = [v for v in values if v is not None]
    assert len(answer) <= max(1, count)
    assert sum(bucket.entries for bucket in answer) == len(values)
    assert [p[0] for p in answer] == sorted({p[0] for p in answer})
    if values:
        assert answer[-1][0] == len(values) - 1
    assert min((p[1] for p in answer if p[1] is not None), default=None) == min(known, default=None)
    assert max((p[3] for p in answer if p[3] is not None), default=None) == max(known, default=None)
    begin = 0
    for x, low, mean, high, _ in answer:
        inside = [v for v in values[begin : int(x) + 1] if v is not None]
        begin = int(x) + 1
        assert (low, high) == (min(inside, default=None), max(inside, default=None))
        assert mean is None if not inside else mean == pytest.approx(sum(inside) / len(inside), abs=1e-6)


def test_a_range_holds_only_its_own_points() -> None:
    series = Series()
    for x in range(100):
        series.add(x, x, x)
    assert series.buckets(1000, since=10, until=12) == [(x, x, x, x, 1) for x in (10, 11, 12)]
    assert series.buckets(1000, since=200) == []
    assert series.buckets(1, since=90) == [(99, 90, 94.5, 99, 10)]


@settings(deadline=None)
@given(st.lists(st.none() | finite, max_size=120), st.integers(1, 40), st.integers(2, 16))
def test_a_series_made_of_the_buckets_of_another_has_its_steps_and_values(
    values: list[float | None], count: int, capacity: int
) -> None:
    sent = Series()
    for x, value in enumerate(values[:-1], 1):
        sent.add(x, value, value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(series_module, "CAPACITY", capacity)
        received = Series(sent.buckets(count))
        assert len(received) <= capacity
        for x, value in enumerate(values[-1:], len(values)):
            received.add(x, value, value)
    known = [value for value in values if value is not None]
    assert received.coverage() == ((1, len(values), len(values)) if values else None)
    assert received.lowest() == min(known, default=None)
    assert received.newest == (values[-1] if values else None)
    assert [point[:1] for point in received.points] == [(bucket.x,) for bucket in received.buckets(1000)]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.none() | finite), max_size=80), st.integers(2, 12))
def test_the_points_that_are_drawn_follow_every_change(changes: list[tuple[int, float | None]], capacity: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(series_module, "CAPACITY", capacity)
        series = Series()
        for step, value in changes:
            if series.x and step <= series.x[-1]:
                series.truncate(step - 1)
            series.add(step, value, value)
            assert list(series.points) == [bucket[:4] for bucket in series.buckets(1000)]


def test_a_telemetry_range_counts_its_minimum_and_maximum(path: Path) -> None:
    log = History(path)
    log.add_events([(0, Telemetry(t=5.0, rss=[10, 30], ram_used=7, device_used=None))])
    assert log.query(["rss", "ram_used", "device_used"], 10) == {
        "rss": [(5.0, 10, 20, 30, 1)],
        "ram_used": [(5.0, 7, 7, 7, 1)],
        "device_used": [],
    }


def test_live_telemetry_is_not_counted_again_from_the_log(path: Path) -> None:
    log = History(path)
    log.add_events([(0, Telemetry(t=1.0, rss=[1, 3]))])
    for t in (2.0, 3.0):
        log.sample(Telemetry(t=t, rss=10))
    log.add_events([(9, Telemetry(t=3.5, rss=[10, 10]))])
    assert [p[0] for p in log.query(["rss"], 10)["rss"]] == [1, 2, 3]


def test_a_nan_is_a_gap_and_an_unknown_series_is_left_out(path: Path) -> None:
    log = History(path)
    log.add_events([(0, Step(step=1, loss=None))])
    assert log.query(["loss", "nonsense"], 10) == {"loss": [(1, None, None, None, 1)]}


def test_a_series_holds_only_the_steps_that_have_it(path: Path) -> None:
    log = History(path)
    log.add_events(numbered([Step(step=n, mfu=n if n % 2 else None) for n in range(1, 6)]))
    assert points(log.query(["mfu"], 10)["mfu"]) == [[n, n, n, n] for n in (1, 3, 5)]


def test_a_query_of_twenty_thousand_steps_is_no_larger_than_of_five_thousand(path: Path) -> None:
    log = History(path)
    sizes = []
    for step in range(1, 20_001):
        log.add_events([(step, Step(step=step, loss=1 / 3, lr=1e-4, grad_norm=7 / 3))])
        if step in (5_000, 20_000):
            sizes.append(len(json.dumps(log.query(list(SERIES), 500))))
    assert sizes[1] <= 1.1 * sizes[0]
    assert sizes[1] < 3 * 500 * 90
    assert all(len(series) <= CAPACITY for series in log.series.values())


# -- time


@settings(deadline=None)
@given(st.lists(st.floats(0, 4e9), max_size=60), st.integers(2, 8))
def test_time_never_falls_whatever_the_clock_does(clock: list[float], capacity: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(series_module, "CAPACITY", capacity)
        series = Series()
        for n, t in enumerate(clock):
            series.add(t, n, n)
            xs = [p[0] for p in series.buckets(1000)]
            assert xs == sorted(xs)
            assert sum(series.entries) == n + 1


def test_a_single_time_from_the_future_does_not_affect_later_ones() -> None:
    series = Series()
    for t in (100.0, 101.0, 3.5e9, 103.0, 104.0):
        series.add(t, 1, 1)
    assert [p[0] for p in series.buckets(9)] == [100, 101, 103, 103, 104]


def test_time_stands_still_until_a_clock_set_back_has_caught_up() -> None:
    series = Series()
    for t in (5000.0, 5001.0, 1401.0, 1402.0, 5002.0):
        series.add(t, t, t)
    assert [(p[0], p[1]) for p in series.buckets(9)] == [
        *((5000, 5000), (5001, 5001), (5001, 1401), (5001, 1402), (5002, 5002)),
    ]


# -- restarts


def two_passes(path: Path) -> dict[str, list[tuple[float, float | None]]]:
    """A simple reference: a step counts only if no later attempt started at or before it."""
    resumed = [start.resumed_from for start in of_kind(Start, read_all(path))]
    kept = [-1 if r is None else r for r in resumed]
    limits = [min(kept[n:], default=math.inf) for n in range(len(kept) + 1)]
    begun = 0
    truth: dict[str, list[tuple[float, float | None]]] = {"loss": [], "lr": [], "val_loss": []}
    for _, event in read_all(path):
        if isinstance(event, Start):
            begun += 1
        elif isinstance(event, Step | Val) and event.step <= limits[begun]:
            if isinstance(event, Val):
                truth["val_loss"].append((event.step, event.loss))
            else:
                truth["loss"].append((event.step, event.loss))
                if event.lr is not None:
                    truth["lr"].append((event.step, event.lr))
    return truth


def assert_matches(found: History, truth: dict[str, list[tuple[float, float | None]]]) -> None:
    """Every bucket matches the true values it covers, and all values are covered."""
    for name, values in truth.items():
        buckets = found.series[name]
        answer = found.query([name], 1 << 20)[name]
        assert sum(buckets.entries) == len(values), name
        before = -math.inf
        for x, low, mean, high, _ in answer:
            inside = [v for at, v in values if before < at <= x and v is not None]
            before = x
            assert (low, high) == (min(inside, default=None), max(inside, default=None)), (name, x)
            assert mean == (pytest.approx(sum(inside) / len(inside)) if inside else None)
        assert (answer[-1].x if answer else None) == (values[-1][0] if values else None)


attempts = st.lists(st.tuples(st.none() | st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=6)


def write_attempts(path: Path, runs: list[tuple[int | None, int]]) -> None:
    """Write attempts (resumed from, steps done) as a trainer does: each resumes from a step reached before."""
    reached = 0
    for attempt, (resumed_from, count) in enumerate(runs, start=1):
        start = None if resumed_from is None else min(resumed_from, reached) or None
        log = LogWriter(path, attempt)
        log.write(Start(resumed_from=start))
        if start is None:
            log.write(Val(step=0, loss=attempt + 0.25, bits_per_byte=attempt + 0.125))
        for step in range((start or 0) + 1, (start or 0) + count + 1):
            lr = step / 7 if step % 5 else None  # a series of fewer values has other buckets
            log.write(Step(step=step, loss=None if step % 11 == 0 else attempt + step / 100, lr=lr))
            if step % 3 == 0:
                log.write(
                    Val(step=step, loss=attempt + step / 50, bits_per_byte=attempt + step / 99 if step % 2 else None)
                )
        log.close()
        reached = max(reached, (start or 0) + count)


@settings(deadline=None, max_examples=80)
@given(attempts, st.sampled_from([2, 3, 4, 8, 4096]), st.integers(1, 60))
def test_the_latest_attempt_wins(
    tmp_path_factory: pytest.TempPathFactory, runs: list[tuple[int | None, int]], capacity: int, chunk: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "events.jsonl"
    write_attempts(path, runs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(series_module, "CAPACITY", capacity)
        found = History(path)
        records = list(read_all(path))
        for begin in range(0, len(records), chunk):
            found.add_events(records[begin : begin + chunk])
        assert_matches(found, two_passes(path))
        assert all(len(found.series[name]) <= capacity for name in BY_STEP)


def test_a_restart_late_in_a_long_log_reads_little_of_it_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = LogWriter(path, 1)
    for step in range(1, 20_001):
        log.write(Step(step=step, loss=1.0))
    found = History(path)
    found.add_events(read_all(path))
    read = []

    def noted(*args: Any) -> Iterator[tuple[int, Event]]:
        for pair in read_all(*args):
            read.append(pair)
            yield pair

    monkeypatch.setattr(history, "read_all", noted)
    log.write(Start(resumed_from=10_003))
    found.add_events([(path.stat().st_size, Start(resumed_from=10_003))])
    assert found.query(["loss"], 1)["loss"][-1][0] == 10_003
    assert sum(found.series["loss"].entries) == 10_003
    assert 0 < len(read) <= 2 * found.series["loss"].width


def test_a_restart_from_step_0_drops_the_first_validation(path: Path) -> None:
    write_attempts(path, [(None, 0), (None, 0)])
    found = History(path)
    found.add_events(read_all(path))
    assert found.query(["val_loss"], 10)["val_loss"] == [(0, 2.25, 2.25, 2.25, 1)]


# -- damage


def fed(path: Path, *events: tuple[int, Event]) -> list[Any]:
    found = History(path)
    for attempt, event in events:
        LogWriter(path, attempt).write(event)
    found.add_events(read_all(path))
    return [p[0] for p in found.query(["loss"], 100)["loss"]]


def steps(attempt: int, *numbers: int) -> list[tuple[int, Event]]:
    return [(attempt, Step(step=n, loss=1.0)) for n in numbers]


def test_a_step_corrupted_to_a_later_one_loses_two_points(path: Path) -> None:
    assert fed(path, *steps(1, 1, 2, 9_000_003, 4, 5, 6)) == [1, 2, 5, 6]


def test_a_step_corrupted_to_an_earlier_one_loses_itself(path: Path) -> None:
    assert fed(path, *steps(1, 101, 102, 3, 104, 105)) == [101, 102, 104, 105]


def test_a_restart_without_its_start_record_is_detected_by_the_attempt(path: Path) -> None:
    assert fed(path, *steps(1, 1, 2, 3, 4), *steps(2, 3, 4, 5)) == [1, 2, 3, 4, 5]


def test_a_validation_corrupted_to_a_later_step_does_not_hide_the_next_ones(path: Path) -> None:
    log = LogWriter(path, 1)
    for step, val in ((1, 1), (2, 2 << 20), (3, 3), (4, 1), (5, 5)):
        log.write(Step(step=step, loss=1.0))
        log.write(Val(step=val, loss=1.0))
    found = History(path)
    found.add_events(read_all(path))
    assert [p[0] for p in found.query(["val_loss"], 9)["val_loss"]] == [1, 3, 5]
