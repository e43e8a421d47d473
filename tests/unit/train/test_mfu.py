"""MFU of every step, and the peak that it is a fraction of."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from engine.execution.peak_flops import MEASURED, PUBLISHED, Peak, peak
from engine.memory.hardware import cpu_name
from engine.train.backends.build import build_backend
from engine.train.backends.ranks import SingleRank
from engine.train.loop import Trainer
from engine.train.measure.device_peak import device_peak
from engine.train.run_state import RunState
from model.flops import flops_per_token
from tests.unit.train.tiny_runs import MakeSpec, RecordingReporter


@pytest.mark.parametrize(
    ("name", "multiprocessors", "boost_ghz"),
    [
        ("RTX 5090", 170, 2.407),
        ("RTX 5080", 84, 2.617),
        ("RTX 5070 Ti", 70, 2.452),
        ("RTX 4090", 128, 2.520),
        ("RTX 4080", 76, 2.505),
        ("RTX 3090", 82, 1.695),
    ],
)
def test_the_published_peaks_of_geforce_cards_are_those_of_their_units(
    name: str, multiprocessors: int, boost_ghz: float
) -> None:
    found = peak(f"NVIDIA GeForce {name}", "bf16")
    assert found is not None
    assert found.flops_per_s == pytest.approx(multiprocessors * 512 * boost_ghz * 1e9, rel=0.005)


def test_only_the_device_itself_has_a_published_peak() -> None:
    assert device_peak("NVIDIA GeForce RTX 5080", "cuda", "bf16_sr") == Peak(112.6e12, PUBLISHED)
    for name in ("NVIDIA GeForce RTX 5080 Laptop GPU", "NVIDIA GeForce RTX 5090 D", "NVIDIA A100-SXM4-40GB MIG 1g.5gb"):
        assert peak(name, "bf16") is None
    assert peak("NVIDIA GeForce RTX 5080", "fp32") is None


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("device", ["cpu", *(["mlx"] if importlib.util.find_spec("mlx") else [])])
def test_a_measured_peak_leaves_threads_and_random_numbers_as_they_are(device: str, precision: str) -> None:
    threads, random = torch.get_num_threads(), torch.get_rng_state()
    found = device_peak("a machine", device, precision)
    assert found.source == MEASURED
    assert found.flops_per_s > 1e8
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), random)


def test_every_step_has_its_mfu_and_the_start_its_peak(nano: MakeSpec, tmp_path: Path) -> None:
    spec = nano("train.steps=2")
    log = RecordingReporter()
    Trainer(RunState(spec), build_backend(spec, SingleRank()), log, tmp_path / "out").run(None, None)
    (start,) = log.of("start")
    assert start["peak_source"] == MEASURED and start["device"] == cpu_name()
    per_token = flops_per_token(spec.model.config, spec.batch.context)
    steps = log.of("step")
    assert len(steps) == 2
    for step in steps:
        assert step["mfu"] == pytest.approx(step["tok_s"] * per_token / start["peak_flop_s"])
