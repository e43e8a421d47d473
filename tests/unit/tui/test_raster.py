import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.events.series import Point
from tui.app.state import raster

finite = st.floats(-1e9, 1e9)
values = st.one_of(st.none(), finite, st.sampled_from([math.nan, math.inf, -math.inf]))


def points(ys: Sequence[float | None]) -> list[Point]:
    return [(float(x), y, y, y) for x, y in enumerate(ys, 1)]


def draw_masks(cols: list[raster.Column | None], axis: raster.Axis, height: int) -> list[int]:
    """Return line and band combined."""
    both = zip(raster.line_masks(cols, axis, height), raster.band_masks(cols, axis, height), strict=True)
    return [a | b for a, b in both]


@given(st.lists(finite, min_size=1, max_size=400), st.integers(1, 120), st.integers(1, 12), st.data())
def test_a_spike_of_one_step_is_always_drawn(ys: list[float], width: int, height: int, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(ys) - 1))
    ys[at] = 2e9
    axis = raster.linear_axis(-1e9, 2e9, 4)
    masks = draw_masks(raster.to_columns(points(ys), 0, len(ys) + 1, width), axis, height * 4)
    top = raster.line_masks(raster.to_columns(points([2e9]), 0, 2, 1), axis, height * 4)[0]
    assert any(mask & top for mask in masks)


@given(st.lists(values, min_size=1, max_size=300), st.integers(1, 80), st.floats(0, 1), st.floats(0, 1))
def test_columns_keep_the_extremes_of_any_range(ys: list[float | None], width: int, a: float, b: float) -> None:
    begin, end = sorted((a * (len(ys) + 1), b * (len(ys) + 1)))
    end = max(end, begin + 1)
    inside = [y for x, y, *_ in points(ys) if begin <= x <= end and y is not None and math.isfinite(y)]
    found = raster.value_range(raster.to_columns(points(ys), begin, end, width))
    assert found == ((min(inside), max(inside)) if inside else None)
    shown = raster.clip_to_range(points(ys), begin, end)
    assert [p[0] for p in shown] == sorted(p[0] for p in shown)
    assert all(begin <= p[0] <= end for p in shown)
    assert [p for p in shown if p in points(ys)] == [p for p in points(ys) if begin <= p[0] <= end]


@given(st.lists(finite, min_size=2, max_size=50), st.integers(4, 40))
def test_the_line_is_the_mean_within_its_band(ys: list[float], height: int) -> None:
    cols = raster.to_columns([*points(ys), (len(ys) + 2.0, ys[0], ys[0], ys[0])], 0, 2 * len(ys) + 2, 2)
    assert cols[0] is not None and cols[0].mean == pytest.approx(sum(ys) / len(ys), abs=1e-3)
    axis = raster.linear_axis(min(ys), max(ys), 3)
    line, band = raster.line_masks(cols[:1], axis, height)[0], raster.band_masks(cols[:1], axis, height)[0]
    assert line.bit_count() == 1
    if min(ys) == max(ys):
        assert band == 0
    else:
        assert band & -band <= line <= 1 << (band.bit_length() - 1)


def test_a_bucket_is_found_by_any_of_its_steps() -> None:
    buckets = [(10.0, 1.0, 2.0, 3.0), (20.0, 4.0, 5.0, 6.0)]
    assert raster.bucket_at(buckets, 1) == raster.bucket_at(buckets, 10) == buckets[0]
    assert raster.bucket_at(buckets, 11) == raster.bucket_at(buckets, 20) == buckets[1]
    assert raster.bucket_at(buckets, 21) is None


@given(st.lists(values, max_size=60), st.integers(0, 50), st.integers(0, 8))
def test_any_series_can_be_drawn_at_any_size(ys: list[float | None], width: int, height: int) -> None:
    cols = raster.to_columns(points(ys), 0, len(ys) + 1, width)
    found = raster.value_range(cols) or (0.0, 1.0)
    for axis in (raster.linear_axis(*found, 3), raster.log_axis(*found, 3)):
        rows = raster.braille_rows(draw_masks(cols, axis, height * 4), height)
        assert len(rows) == height
        assert all(len(row) == width // 2 for row in rows)


@given(st.integers(2, 30), st.integers(2, 30), st.sampled_from([None, math.nan, math.inf]))
def test_a_gap_is_never_bridged(before: int, after: int, missing: float | None) -> None:
    ys: list[float | None] = [1.0] * before + [missing] + [1.0] * after
    cols = raster.to_columns(points(ys), 0.5, len(ys) + 0.5, len(ys))
    masks = draw_masks(cols, raster.linear_axis(0, 2, 2), 8)
    assert masks[before] == 0
    assert all(mask for x, mask in enumerate(masks) if x != before)


def test_measured_neighbours_are_connected_across_empty_columns() -> None:
    cols = raster.to_columns([(1.0, 0.0, 0.0, 0.0), (9.0, 8.0, 8.0, 8.0)], 0, 10, 20)
    masks = draw_masks(cols, raster.linear_axis(0, 8, 2), 16)
    first, last = 2, 18
    assert all(masks[first : last + 1])
    assert not any(masks[:first]) and not any(masks[last + 1 :])


@given(finite, st.floats(0, 1e9), st.integers(1, 6), st.sampled_from([1.0, 1024.0, 1024.0**3]))
def test_an_axis_includes_its_values_and_has_a_tick(low: float, span: float, ticks: int, unit: float) -> None:
    axis = raster.linear_axis(low, low + span, ticks, unit)
    slack = 1e-6 * max(abs(low), span, 1.0)
    assert axis.low <= low + slack and axis.high >= low + span - slack
    assert 1 <= len(axis.ticks) <= ticks + 3
    assert all(axis.low - slack <= tick <= axis.high + slack for tick in axis.ticks)


@given(st.floats(1e-12, 1e12), st.floats(1, 1e9), st.integers(1, 6))
def test_a_log_axis_includes_its_values(low: float, factor: float, ticks: int) -> None:
    axis = raster.log_axis(low, low * factor, ticks)
    a, b = axis.fraction(low), axis.fraction(low * factor)
    assert a is not None and b is not None and a >= -1e-6 and b <= 1 + 1e-6
    assert axis.fraction(0.0) is None and axis.fraction(-1.0) is None


@given(st.floats(1e-3, 1e12))
def test_an_axis_end_is_the_next_round_number(value: float) -> None:
    end = raster.nice_ceiling(value)
    assert value <= end * (1 + 1e-9) and end <= value * 1.5 * (1 + 1e-9)
    assert raster.nice_ceiling(end) == end


def test_an_axis_is_kept_while_the_values_fit_and_fill_it() -> None:
    make = lambda a, b: raster.linear_axis(a, b, 4)  # noqa: E731
    old = raster.stable_axis(None, 0, 10, make)
    assert raster.stable_axis(old, 2, 9, make) is old
    assert raster.stable_axis(old, 2, 11, make).high >= 11
    assert raster.stable_axis(old, 4, 5, make) != old


@given(st.lists(values, max_size=40), st.floats(0, 0.99))
def test_smoothing_keeps_gaps_and_the_range_of_values(ys: list[float | None], weight: float) -> None:
    smooth = raster.smooth(points(ys), weight)
    known = [y for y in ys if y is not None and math.isfinite(y)]
    for y, (_, _, mean, _) in zip(ys, smooth, strict=True):
        assert (mean is None) == (y is None or not math.isfinite(y))
        if mean is not None:
            assert min(known) - 1 <= mean <= max(known) + 1


@given(st.lists(values, max_size=40), st.integers(0, 20))
def test_a_sparkline_has_the_requested_width(ys: list[float | None], width: int) -> None:
    text = raster.sparkline(ys, width)
    assert len(text) == width
    shown = ys[-width:] if width else []
    assert text.count(" ") == width - sum(y is not None and math.isfinite(y) for y in shown)
