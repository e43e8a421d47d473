"""A run's speed is recorded once for each shape of its batch, without its first steps."""

from __future__ import annotations

from pathlib import Path

from engine.events.types import Step
from engine.memory.calibration import MeasuredSpeed, load_past_runs
from engine.memory.hardware import detect_hardware
from engine.runs.speed_recorder import SpeedRecorder
from profiles.registry import load


def test_the_median_without_the_first_steps_is_recorded(tmp_path: Path) -> None:
    spec = load("cpu_demo", ["memory.strategy=device"])
    recorder = SpeedRecorder(spec, "mine", tmp_path)

    def steps(count: int, tok_s: float, micro: int = 8) -> None:
        for number in range(count):
            recorder.observe(Step(step=number + 1, tok_s=tok_s, micro=micro, accum=8 // micro, context=256))

    def recorded() -> MeasuredSpeed | None:
        found = load_past_runs(detect_hardware(), tmp_path)
        assert len(found) <= 1
        return found[0].speed if found else None

    steps(2, 1.0)
    steps(9, 900.0)
    assert recorded() is None
    steps(1, 100_000.0)
    first = recorded()
    assert first is not None and first.tok_s == 900.0
    steps(50, 5.0)  # once is enough
    assert recorded() == first
    steps(12, 400.0, micro=4)
    second = recorded()
    assert second is not None and second.tok_s == 400.0 and second.key != first.key
    recorder.restart()
    steps(1, 7.0, micro=4)
    assert recorded() == second
