"""Forecasts are corrected by the measured peaks of this machine's past runs."""

from __future__ import annotations

import json
import multiprocessing
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.memory.calibration import (
    FILE_NAME,
    MAX_RUNS,
    MAX_SIZE_RATIO,
    MeasuredPeak,
    calibrate,
    load_past_runs,
    measurable_bytes,
    record_run,
)
from engine.memory.forecast import forecast
from engine.memory.hardware import Hardware
from profiles.registry import load
from profiles.spec import RunSpec

GB = 1 << 30
CARD = Hardware("a card", "cuda", 16 * GB, 15 * GB, 24 * GB, 20 * GB)


def spec(*changes: str) -> RunSpec:
    return load("pretrain_5080", ["launch.backend=deepspeed", *changes])


def times(ratio: float, one: RunSpec, machine: Hardware = CARD) -> MeasuredPeak:
    predicted = measurable_bytes(one, forecast(one, machine))
    return MeasuredPeak(round(predicted["device"] * ratio), round(predicted["host"] * ratio))


def test_without_past_runs_the_forecast_is_unchanged(tmp_path: Path) -> None:
    found = calibrate(spec(), CARD, load_past_runs(CARD, tmp_path))
    assert (found.forecast, found.description) == (forecast(spec(), CARD), "")


def test_the_median_ratio_corrects_the_forecast_and_is_described(tmp_path: Path) -> None:
    for number, ratio in enumerate((1.02, 1.04, 1.5)):
        assert record_run(spec(), CARD, times(ratio, spec()), run=f"run-{number}", home=tmp_path)
    found = calibrate(spec(), CARD, load_past_runs(CARD, tmp_path))
    assert found.description == "calibrated: device ×1.04 from 3 runs, host ×1.04 from 3 runs on this machine"
    plain = forecast(spec(), CARD)
    assert measurable_bytes(spec(), found.forecast)["device"] == pytest.approx(
        1.04 * measurable_bytes(spec(), plain)["device"]
    )
    assert found.forecast.host_total == pytest.approx(1.04 * plain.host_total)
    assert found.forecast.device["CUDA context"] == plain.device["CUDA context"]


def test_a_run_recorded_twice_counts_once(tmp_path: Path) -> None:
    for ratio in (1.5, 1.1):
        record_run(spec(), CARD, times(ratio, spec()), run="run", home=tmp_path)
    found = calibrate(spec(), CARD, load_past_runs(CARD, tmp_path))
    assert found.device is not None
    assert (round(found.device.ratio, 3), found.device.runs) == (1.1, 1)


def test_runs_of_another_size_backend_or_device_do_not_count(tmp_path: Path) -> None:
    record_run(spec(), CARD, times(1.2, spec()), run="run", home=tmp_path)
    small = spec("model.num_hidden_layers=2", "batch.micro=1")
    predicted = [measurable_bytes(one, forecast(one, CARD))["device"] for one in (small, spec())]
    assert predicted[0] * MAX_SIZE_RATIO < predicted[1]
    other = Hardware("another card", "cuda", 16 * GB, 15 * GB, 24 * GB, 20 * GB)
    plain_torch = spec("launch.backend=torch", "memory.strategy=states8bit")
    for one, machine in ((small, CARD), (plain_torch, CARD), (spec(), other)):
        assert calibrate(one, machine, load_past_runs(machine, tmp_path)).device is None


@pytest.mark.parametrize("measured", [MeasuredPeak(), MeasuredPeak(1, 1), MeasuredPeak(1 << 50, None)])
def test_implausible_peaks_are_not_recorded(measured: MeasuredPeak, tmp_path: Path) -> None:
    assert not record_run(spec(), CARD, measured, run="run", home=tmp_path)
    assert not (tmp_path / FILE_NAME).exists()


def test_the_number_of_runs_is_bounded(tmp_path: Path) -> None:
    for number in range(MAX_RUNS + 5):
        record_run(spec(), CARD, times(1.1, spec()), run=f"run-{number}", home=tmp_path)
    assert len(load_past_runs(CARD, tmp_path)) == MAX_RUNS


JSON = st.recursive(
    st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@given(st.binary() | JSON.map(lambda content: json.dumps({"format": 2, "runs": content}).encode()))
def test_a_damaged_file_is_ignored(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as home:
        (Path(home) / FILE_NAME).write_bytes(content)
        assert load_past_runs(CARD, Path(home)) == []


def test_damaged_lines_are_skipped_and_the_rest_is_read(tmp_path: Path) -> None:
    record_run(spec(), CARD, times(1.1, spec()), run="run", home=tmp_path)
    content = json.loads((tmp_path / FILE_NAME).read_text())
    (lines,) = content["runs"].values()
    lines += [None, 3, {}, {"run": "x", "backend": "deepspeed", "forecast": {"device": 0}, "measured": {"device": 1}}]
    (tmp_path / FILE_NAME).write_text(json.dumps(content))
    assert [run.name for run in load_past_runs(CARD, tmp_path)] == ["run"]


def _record_many(home: Path, first: int) -> None:
    for number in range(first, first + 10):
        record_run(spec(), CARD, times(1.1, spec()), run=f"run-{number}", home=home)


def test_two_runs_that_end_at_once_are_both_recorded(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=_record_many, args=(tmp_path, first)) for first in (0, 10)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert len(load_past_runs(CARD, tmp_path)) == 20
