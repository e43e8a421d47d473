"""The forecast matches the memory of real steps, tensor by tensor; ``python -m tests.bench.memory`` prints a table."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

from model.loss import resolve_loss
from model.transformer import MLATransformer
from profiles.spec import RunSpec
from tests.bench import memory_specs
from tests.bench.accounting import (
    MemoryTracker,
    forecast_fake,
    forecast_parts,
    measured,
    measured_fake,
    tracked_parts,
)

MEDIAN, WORST = 0.02, 0.06  # the errors that the design allows
UNDER = 0.03  # a forecast must never be further below the measured peak


def errors(specs: Iterator[RunSpec], real: object = measured, forecast: object = forecast_parts) -> list[float]:
    found = []
    for spec in specs:
        actual, predicted = sum(real(spec).values()), sum(forecast(spec).values())  # type: ignore[operator]
        found.append(predicted / actual - 1)
        assert -UNDER < found[-1] < WORST, (
            f"{spec.train} {spec.memory} {spec.batch}: forecast {predicted}, measured {actual}"
        )
    return found


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_ten_specs_match_their_forecast() -> None:
    found = sorted(abs(error) for error in errors(memory_specs.short()))
    assert len(found) >= 10
    assert found[len(found) // 2] < MEDIAN


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_every_spec_matches_its_forecast() -> None:
    found = sorted(abs(error) for error in errors(memory_specs.whole()))
    assert len(found) >= 60
    assert found[len(found) // 2] < MEDIAN


def test_a_full_size_model_on_fake_tensors_matches_its_forecast() -> None:
    last = list(memory_specs.full_size())[2]  # pretrain_5080 unchanged
    assert last.memory.checkpointing == "full"
    errors(iter([last]), measured_fake, forecast_fake)


@pytest.mark.faults
def test_every_full_size_profile_matches_its_forecast() -> None:
    errors(memory_specs.full_size(), measured_fake, forecast_fake)


def test_our_tracker_counts_like_torchs() -> None:
    spec = next(memory_specs.whole())
    peaks = []
    for tracker in (MemoryTracker(), MemTracker()):
        with FakeTensorMode():
            model = MLATransformer(spec.model.config)
            ids = torch.zeros(2, 384, dtype=torch.int64)
            if isinstance(tracker, MemTracker):
                tracker.track_external(model)
            with tracker:
                if isinstance(tracker, MemoryTracker):
                    with tracked_parts(tracker, model):
                        resolve_loss("fused")(model, ids, ids).backward()
                else:
                    resolve_loss("fused")(model, ids, ids).backward()
        if isinstance(tracker, MemoryTracker):
            peaks.append(tracker.peak)
        else:
            peaks.append(tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"])
    assert peaks[0] == pytest.approx(peaks[1], rel=1e-3)
