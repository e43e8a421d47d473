"""What the search chooses for a card runs on it, in the memory that is predicted for its tensors."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engine.memory.forecast import NOT_ALLOCATED
from engine.memory.hardware import detect_hardware
from engine.memory.headroom import FITS
from engine.memory.search.search import Candidate, Search
from engine.preflight import resolve_spec
from engine.train.backends.build import build_backend
from engine.train.backends.ranks import SingleRank
from engine.train.loop import Trainer
from engine.train.run_state import RunState
from profiles.registry import load
from profiles.spec import RunSpec
from tests.fake_cuda.device import card
from tests.fake_cuda.driver import NAME, TOTAL, UUID
from tests.unit.train.tiny_runs import NANO, RecordingReporter, write_shards

MIB = 1 << 20
ERROR = 1.03  # attention on this card takes torch's plain path, which keeps more than a card's own kernel


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", UUID)  # as a trainer leaves it
    monkeypatch.setenv("MLA_TUI_HOME", str(tmp_path / "home"))
    write_shards(tmp_path / "data")
    yield tmp_path / "data"
    card.set_limit(TOTAL)


def wide(root: Path, *more: str) -> RunSpec:
    """Return a spec of which a sequence takes some megabytes, nearly all of them logits."""
    words = [*NANO, "model.vocab_size=8192", "sequences=32", "context=64", "loss=fused", "micro=auto"]
    words += ["train.compile=off", "train.steps=2", "val_every=0", "save_every=0", "strategy=device", "precision=fp32"]
    return load("cpu_demo", [*words, f"data.root={root}", *more])


def run_in_its_forecast(way: Candidate, out: Path) -> RecordingReporter:
    """Train ``way`` on a card with no more than its tensors are predicted to take, and the error of that."""
    tensors = sum(size for part, size in way.forecast.device.items() if part not in NOT_ALLOCATED)
    gc.collect()  # the run before
    card.set_limit(card.allocated + int(ERROR * tensors))
    spec, log = replace(way.spec, memory=replace(way.spec.memory, oom="fail")), RecordingReporter()
    Trainer(RunState(spec), build_backend(spec, SingleRank()), log, out).run(None, None)
    card.set_limit(TOTAL)
    return log


def test_the_card_of_this_machine_is_found_and_a_run_is_resolved_for_it(root: Path) -> None:
    machine = detect_hardware()
    assert (machine.name, machine.device, machine.device_total, machine.bf16) == (NAME, "cuda", TOTAL, True)
    chosen = resolve_spec(load("pretrain_5080"))
    assert chosen.train.precision in ("bf16", "bf16_sr") and "batch.micro" in chosen.resolved
    assert Search(machine).forecast(chosen, machine).fits(machine)


@pytest.mark.parametrize("mode", ["auto", "none", "selective", "full", "offload"])
def test_what_is_chosen_runs_in_the_memory_that_is_free(root: Path, tmp_path: Path, mode: str) -> None:
    spec, micros = wide(root, f"checkpointing={mode}"), []
    smallest = Search(detect_hardware()).chosen_from(wide(root, f"checkpointing={mode}", "micro=1"))[0]
    for more in (8 * MIB, 30 * MIB):
        free = int((smallest.forecast.device_total + more) / 0.9)
        best = Search(replace(detect_hardware(), device_free=free)).chosen_from(spec)[0]
        assert best.state == FITS
        micros.append(best.spec.batch.micro)
        log = run_in_its_forecast(best, tmp_path / str(more))
        assert log.of("oom") == [] and len(log.of("step")) == 2
    assert 1 <= micros[0] < micros[1] < 32, micros
