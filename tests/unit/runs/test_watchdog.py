"""A silence of ten median steps is reported once, and its end too."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.events.types import Alert, Progress, Start, State, Step, Telemetry
from engine.runs.watchdog import MIN_STALL, STALL_STEPS, Watchdog


def running(step_s: float, count: int = 5) -> tuple[Watchdog, float]:
    watchdog, now = Watchdog(), 100.0
    watchdog.observe(State(phase="running"), now)
    for _ in range(count):
        now += step_s
        watchdog.observe(Step(step=1, step_s=step_s), now)
    return watchdog, now


@given(st.floats(0.001, 100))
def test_only_ten_steps_of_silence_are_a_stall(step_s: float) -> None:
    watchdog, now = running(step_s)
    limit = max(STALL_STEPS * step_s, MIN_STALL)
    assert watchdog.check(now + limit * 0.99) is None
    assert "no progress" in (watchdog.check(now + limit * 1.01) or "")
    assert watchdog.check(now + limit * 2) is None  # reported once
    assert "it lasted" in (watchdog.observe(Progress(), now + limit * 3) or "")
    assert watchdog.observe(Progress(), now + limit * 3) is None
    assert watchdog.check(now + limit * 4.1) is not None


def test_micro_batches_of_a_long_step_are_progress() -> None:
    watchdog, now = running(20.0)
    for _ in range(50):
        now += 30
        watchdog.observe(Progress(), now)
        assert watchdog.check(now + 30) is None


def test_phases_that_cannot_stall() -> None:
    assert Watchdog().check(1e9) is None  # no step yet
    for phase in ("paused", "starting", "compiling", "recovering", "stopping", "finished"):
        watchdog, now = running(1.0)
        watchdog.observe(State(phase=phase), now)
        assert watchdog.check(now + 1e6) is None
    watchdog, now = running(1.0)
    watchdog.observe(Start(), now)  # another attempt: its steps may take longer
    assert watchdog.check(now + 1e6) is None


def test_records_of_the_supervisor_itself_are_no_progress() -> None:
    watchdog, now = running(1.0)
    for event in (Telemetry(), Alert()):
        watchdog.observe(event, now + 9)
    assert watchdog.check(now + 11) is not None
