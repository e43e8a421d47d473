"""Tests the short forms of numbers, sizes, durations and times."""

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui.text import format as fmt
from tui.text.axis_text import tick_labels


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0, "0 B"),
        (999, "999 B"),
        (1023, "1.00 KiB"),
        (9.11 * 2**30, "9.11 GiB"),
        (16 * 2**30, "16.0 GiB"),
        (1020 * 2**30, "1.00 TiB"),
        (math.nan, "–"),
    ],
)
def test_sizes(value: float | None, text: str) -> None:
    assert fmt.size(value) == text


def test_used_and_total_share_a_unit() -> None:
    assert fmt.size_of(4.34 * 2**30, 23.3 * 2**30) == "4.34 of 23.3 GiB"
    assert fmt.size_of(600 * 2**20, 2 * 2**30) == "600 MiB of 2.00 GiB"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4167, "0.42 s"),
        (59.6, "1m 00s"),
        (750, "12m 30s"),
        (729 * 86400.0, "729d 0h"),
        (9890 * 86400.0 + 36000, "27y 35d"),
        (3 * 3600 + 300, "3h 05m"),
        (6.2 * 86400, "6d 4h"),
        (None, "–"),
        (-1, "–"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert fmt.duration(seconds) == text


@pytest.mark.parametrize(("value", "text"), [(512, "512"), (12_345, "12.3k"), (1_024_849_664, "1.02B"), (2e5, "200k")])
def test_counts(value: float, text: str) -> None:
    assert fmt.count(value) == text


@given(st.floats(-1e15, 1e15))
def test_counts_stay_short(value: float) -> None:
    assert len(fmt.count(value)) <= 6 + (value < 0)


@pytest.mark.parametrize(("value", "text"), [(4.2134, "4.213"), (123.4, "123.4"), (math.inf, "–"), (3e-4, "3.00e-04")])
def test_losses(value: float, text: str) -> None:
    assert fmt.loss(value) == text


@pytest.mark.parametrize(("value", "text"), [(3e-4, "3.00e-4"), (0.0, "0"), (None, "–")])
def test_rates(value: float | None, text: str) -> None:
    assert fmt.rate(value) == text


def test_a_time_of_today_is_an_hour_and_an_older_one_a_date() -> None:
    noon = time.mktime((2026, 11, 23, 12, 0, 0, 0, 0, -1))
    assert fmt.timestamp(noon - 600, now=noon) == "11:50"
    assert fmt.timestamp(noon - 5 * 86400, now=noon) == "18 Nov"
    assert fmt.timestamp(noon - 300 * 86400, now=noon) == "27 Jan"
    assert fmt.timestamp(noon - 370 * 86400, now=noon) == "2025"  # not 18 Nov, which is a date of this month


def test_the_labels_of_small_ticks_are_written_alike() -> None:
    assert tick_labels([0.0, 5e-4, 1e-3, 1.5e-3], width=6) == ["0", "5e-4", "1e-3", "1.5e-3"]
    assert tick_labels([0.0, 0.1, 0.2], width=6) == ["0", "0.1", "0.2"]
    assert tick_labels([1e-4, 1.0, 1e4], width=6) == ["1e-4", "1", "10.0k"]
    assert tick_labels([123_456.0, 123_457.0], width=6) == ["123k", "123k"]
