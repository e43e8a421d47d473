"""Forecasts corrected by what this machine's runs really peaked at."""

from __future__ import annotations

import json
import multiprocessing
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.memory.calibration import ALIKE, MOST, NAME, Measured, calibrated, comparable, observe, remembered
from engine.memory.forecast import forecast
from engine.memory.hardware import Hardware
from profiles.registry import load
from profiles.spec import RunSpec

GB = 1 << 30
CARD = Hardware("a card", "cuda", 16 * GB, 15 * GB, 24 * GB, 20 * GB)


def spec(*changes: str) -> RunSpec:
    return load("pretrain_5080", list(changes))


def times(ratio: float, one: RunSpec, machine: Hardware = CARD) -> Measured:
    told = comparable(one, forecast(one, machine))
    return Measured(round(told["device"] * ratio), round(told["host"] * ratio))


def test_nothing_seen_changes_nothing(tmp_path: Path) -> None:
    found = calibrated(spec(), CARD, remembered(CARD, tmp_path))
    assert (found.forecast, found.words) == (forecast(spec(), CARD), "")


def test_the_median_run_corrects_the_forecast_and_is_said(tmp_path: Path) -> None:
    for number, ratio in enumerate((1.02, 1.04, 1.5)):
        assert observe(spec(), CARD, times(ratio, spec()), run=f"run-{number}", home=tmp_path)
    found = calibrated(spec(), CARD, remembered(CARD, tmp_path))
    assert found.words == "calibrated: device ×1.04 by 3 runs, host ×1.04 by 3 runs on this machine"
    plain = forecast(spec(), CARD)
    assert comparable(spec(), found.forecast)["device"] == pytest.approx(1.04 * comparable(spec(), plain)["device"])
    assert found.forecast.host_total == pytest.approx(1.04 * plain.host_total)
    assert found.forecast.device["CUDA context"] == plain.device["CUDA context"]


def test_a_run_seen_again_counts_once(tmp_path: Path) -> None:
    for ratio in (1.5, 1.1):
        observe(spec(), CARD, times(ratio, spec()), run="run", home=tmp_path)
    found = calibrated(spec(), CARD, remembered(CARD, tmp_path))
    assert found.device is not None
    assert (round(found.device.ratio, 3), found.device.runs) == (1.1, 1)


def test_runs_of_another_size_backend_or_device_say_nothing(tmp_path: Path) -> None:
    observe(spec(), CARD, times(1.2, spec()), run="run", home=tmp_path)
    small = spec("model.num_hidden_layers=2", "batch.micro=1")
    told = [comparable(one, forecast(one, CARD))["device"] for one in (small, spec())]
    assert told[0] * ALIKE < told[1]
    other = Hardware("another card", "cuda", 16 * GB, 15 * GB, 24 * GB, 20 * GB)
    plain_torch = spec("launch.backend=torch", "memory.strategy=states8bit")
    for one, machine in ((small, CARD), (plain_torch, CARD), (spec(), other)):
        assert calibrated(one, machine, remembered(machine, tmp_path)).device is None


@pytest.mark.parametrize("measured", [Measured(), Measured(1, 1), Measured(1 << 50, None)])
def test_what_cannot_be_is_not_kept(measured: Measured, tmp_path: Path) -> None:
    assert not observe(spec(), CARD, measured, run="run", home=tmp_path)
    assert not (tmp_path / NAME).exists()


def test_it_is_bounded(tmp_path: Path) -> None:
    for number in range(MOST + 5):
        observe(spec(), CARD, times(1.1, spec()), run=f"run-{number}", home=tmp_path)
    assert len(remembered(CARD, tmp_path)) == MOST


JSON = st.recursive(
    st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@given(st.binary() | JSON.map(lambda content: json.dumps({"format": 1, "runs": content}).encode()))
def test_a_damaged_file_is_ignored(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as home:
        (Path(home) / NAME).write_bytes(content)
        assert remembered(CARD, Path(home)) == []


def test_damaged_lines_are_left_out_and_the_rest_stays(tmp_path: Path) -> None:
    observe(spec(), CARD, times(1.1, spec()), run="run", home=tmp_path)
    content = json.loads((tmp_path / NAME).read_text())
    (lines,) = content["runs"].values()
    lines += [None, 3, {}, {"run": "x", "backend": "deepspeed", "told": {"device": 0}, "measured": {"device": 1}}]
    (tmp_path / NAME).write_text(json.dumps(content))
    assert [run.name for run in remembered(CARD, tmp_path)] == ["run"]


def _observe_many(home: Path, first: int) -> None:
    for number in range(first, first + 10):
        observe(spec(), CARD, times(1.1, spec()), run=f"run-{number}", home=home)


def test_two_runs_that_end_together_are_both_kept(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=_observe_many, args=(tmp_path, first)) for first in (0, 10)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert len(remembered(CARD, tmp_path)) == 20
