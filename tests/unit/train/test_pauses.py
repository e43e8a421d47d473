"""The time in which a run is paused counts for nothing that the run measures."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from engine.events.requests import PauseRequest, ResumeRequest
from engine.events.types import Command, Progress, Sample, Step
from engine.train.backends.build import build_backend
from engine.train.backends.ranks import SingleRank
from engine.train.loop import Trainer
from engine.train.run_state import RunState
from tests.unit.train.test_samples import tokenizer
from tests.unit.train.tiny_runs import MakeSpec, RecordingReporter

__all__ = ["tokenizer"]
HOUR = 3600.0


class PausingReporter(RecordingReporter):
    """Pauses the run once within a step and once among its samples, and resumes it."""

    def __init__(self) -> None:
        super().__init__(lambda record: [command(ResumeRequest())] if record.get("phase") == "paused" else [])
        self.pauses = 0
        self.shown: list[Progress] = []

    def progress(self, progress: Progress) -> None:
        self.shown.append(progress)
        if progress.step == 2 and not self.pauses:
            self.pause()

    def pause(self) -> None:
        self.pauses += 1
        self._pending.append(command(PauseRequest()))

    def commands(self) -> list[Command]:
        if self.pauses == 1 and self.losses() and max(self.losses()) == 4:  # of which there are samples
            self.pauses += 1
            return [command(PauseRequest())]
        return super().commands()


def command(request: Any) -> Command:
    return Command(id=request.method, request=request, by="test")


def test_a_pause_is_no_part_of_a_step_nor_of_a_sample(
    nano: MakeSpec, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept = 0.0

    def sleep(_: float) -> None:
        nonlocal slept
        slept += HOUR

    for clock in ("perf_counter", "monotonic"):
        real = getattr(time, clock)
        monkeypatch.setattr(time, clock, lambda real=real: real() + slept)
    monkeypatch.setattr(time, "sleep", sleep)
    log = PausingReporter()
    samples = ("sample_every=4", "sample_tokens=40", 'sample_prompts=["ab"]', "sample_seconds=60")
    spec = nano("steps=4", "save_every=0", "val_every=0", "micro=2", *samples)
    Trainer(RunState(spec), build_backend(spec, SingleRank()), log, tmp_path / "out").run(None, None)
    assert log.pauses == 2 and slept >= 2 * HOUR
    steps = [event for event in log.events if isinstance(event, Step)]
    assert [step.step for step in steps] == [1, 2, 3, 4]
    assert max(step.step_s or 0 for step in steps) < HOUR
    assert min(shown.tok_s or 0 for shown in log.shown) > spec.tokens_per_step / HOUR
    (sample,) = (event for event in log.events if isinstance(event, Sample))
    assert not sample.cut and (sample.seconds or 0) < HOUR
