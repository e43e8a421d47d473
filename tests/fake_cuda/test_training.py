"""What a card's own branches do: memory by phase, restarts, DeepSpeed's offload, waits of the host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.checkpoints import checkpoint
from engine.events.types import Progress
from engine.train.backends.backend import Backend
from engine.train.backends.build import build_backend
from engine.train.backends.ranks import SingleRank
from engine.train.edit_history import RestartRequested
from engine.train.loop import Trainer
from engine.train.phases import BACKWARD, FORWARD, IDLE, OPTIMIZER
from engine.train.run_state import RunState
from profiles.registry import load
from profiles.spec import RunSpec
from tests.fake_cuda.device import card
from tests.fake_cuda.driver import TOTAL, UUID
from tests.unit.train.tiny_runs import NANO, RecordingReporter, write_shards

CHECKPOINTING = ("none", "selective", "full", "offload")
PRECISIONS = ("fp32", "bf16", "bf16_sr")


def nano(root: Path, *more: str) -> RunSpec:
    settings = [*NANO, "memory.strategy=device", "train.compile=off", "train.steps=4", "save_every=1", "micro=8"]
    return load("cpu_demo", [*settings, f"data.root={root}", *more])


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", UUID)  # as a trainer leaves it
    write_shards(tmp_path / "data")
    yield tmp_path / "data"
    card.set_limit(TOTAL)


class ProgressReporter(RecordingReporter):
    def progress(self, progress: Progress) -> None:
        self.record(progress)


def trainer(spec: RunSpec, log: RecordingReporter, out: Path) -> Trainer:
    return Trainer(RunState(spec), build_backend(spec, SingleRank()), log, out)


def take_memory_in(run: Trainer, phase: str, nth: int) -> None:
    """Let another program take all of the card but 4 KiB when ``phase`` begins for the ``nth`` time, until it ends."""
    begun = 0

    def listen(now: str) -> None:
        nonlocal begun
        if now == phase:
            begun += 1
            if begun == nth:
                card.set_limit(card.allocated + 4096)
        elif now == IDLE:
            card.set_limit(TOTAL)

    run.backend.phases.listen(listen)


@pytest.mark.parametrize("mode", CHECKPOINTING)
@pytest.mark.parametrize("phase", [FORWARD, BACKWARD])
def test_out_of_memory_halves_the_micro_batch_and_loses_nothing(root: Path, mode: str, phase: str) -> None:
    spec = nano(root, f"memory.checkpointing={mode}")
    reference, log = RecordingReporter(), RecordingReporter()
    trainer(spec, reference, root / "reference").run(None, None)
    run = trainer(spec, log, root / "oom")
    take_memory_in(run, phase, 3)
    run.run(None, None)
    (oom,) = log.of("oom")
    assert (oom["where"], oom["micro"], oom["action"]) == (phase, 8, "micro 4")
    assert log.losses() == pytest.approx(reference.losses(), rel=1e-4)


@pytest.mark.parametrize("mode", CHECKPOINTING)
def test_out_of_memory_in_the_optimizer_restarts_from_the_checkpoint(root: Path, mode: str) -> None:
    # Stochastic rounding steps one parameter at a time, through wide copies of it.
    spec = nano(root, "train.precision=bf16_sr", f"memory.checkpointing={mode}")
    log = RecordingReporter()
    run = trainer(spec, log, root / "oom")
    take_memory_in(run, OPTIMIZER, 3)
    with pytest.raises(RestartRequested):
        run.run(None, None)
    card.set_limit(TOTAL)
    (oom,) = log.of("oom")
    assert (oom["where"], oom["action"]) == ("optimizer", "micro 4")
    newest = checkpoint.newest_intact(root / "oom", lambda text: None)
    assert newest is not None
    again = trainer(spec, log, root / "oom")
    again.run(newest, None)
    assert sorted(log.losses()) == [1, 2, 3, 4]
    assert again.spec.batch.micro == 4


@pytest.mark.parametrize(("precision", "optimizer"), [("fp32", "adamw"), ("bf16", "adamw"), ("bf16", "muon")])
def test_deepspeeds_offload_has_the_losses_of_torch(root: Path, precision: str, optimizer: str) -> None:
    found = {}
    for backend, strategy in (("torch", "device"), ("deepspeed", "offload")):
        settings = (f"train.precision={precision}", f"optim.name={optimizer}")
        spec = nano(root, f"backend={backend}", f"memory.strategy={strategy}", *settings)
        found[backend] = losses(build_backend(spec, SingleRank()), spec, 4)
    assert found["deepspeed"] == pytest.approx(found["torch"], rel=1e-4 if precision == "fp32" else 1e-2)


def test_deepspeed_is_restored_and_paused_from_device_memory(root: Path) -> None:
    spec = nano(root, "backend=deepspeed", "memory.strategy=offload")
    first = build_backend(spec, SingleRank())
    losses(first, spec, 3)
    state = {part: {name: t.clone() for name, t in tensors.items()} for part, tensors in first.state_dict().items()}
    first.offload_for_pause()
    first.restore_after_pause()
    expected = losses(first, spec, 3)
    second = build_backend(spec, SingleRank())
    second.load_state_dict(state)
    assert losses(second, spec, 3) == expected


# The golden numbers: waits of the host for the card in two micro-batches, in the sums of a step, and in its update.
@pytest.mark.parametrize(
    ("backend", "overrides", "waits"),
    [
        *(("torch", (f"train.precision={precision}",), ([0, 0], 2, 1)) for precision in PRECISIONS),
        *(("torch", (f"memory.checkpointing={mode}",), ([0, 0], 2, 1)) for mode in CHECKPOINTING[1:]),
        ("torch", ("memory.loss=plain",), ([0, 0], 2, 1)),
        ("torch", ("optim.name=muon",), ([0, 0], 2, 1)),
    ],
)
def test_the_host_waits_three_times_a_step(
    root: Path, backend: str, overrides: tuple[str, ...], waits: tuple[list[int], int, int]
) -> None:
    spec = nano(root, f"backend={backend}", "micro=4", "deterministic=false", *overrides)
    assert waits_of(build_backend(spec, SingleRank()), spec) == waits


def test_progress_counts_the_micro_batches_that_the_card_has_finished(root: Path) -> None:
    spec = nano(root, "micro=2", "train.steps=1")
    log = ProgressReporter()
    card.unfinished = 2
    try:
        trainer(spec, log, root / "out").run(None, None)
    finally:
        card.unfinished = 0
    assert [(p["micro_done"], p["tok_s"] > 0) for p in log.of("progress")] == [(0, False), (0, False), (1, True)]


def losses(backend: Backend, spec: RunSpec, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        backend.accumulate(batch(spec), spec.tokens_per_step, last=True)
        found.append(backend.window_totals()[0])
        backend.optimizer_step(1e-3, 1.0)
    return found


def waits_of(backend: Backend, spec: RunSpec) -> Any:
    """Return the waits of the second step: the first also creates the optimizer's states."""
    found: Any = None
    for _ in range(2):
        card.take_syncs()
        halves = []
        for last, rows in enumerate(np.split(batch(spec), 2)):
            backend.accumulate(rows, spec.tokens_per_step, last=bool(last))
            halves.append(card.take_syncs())
        backend.window_totals()
        sums = card.take_syncs()
        backend.optimizer_step(1e-3, 1.0)
        found = halves, sums, card.take_syncs()
    return found


def batch(spec: RunSpec) -> Any:
    shape = spec.batch.sequences, spec.batch.context + 1
    return np.cumsum(np.random.default_rng(1).integers(0, 4, shape), axis=1) % 256
