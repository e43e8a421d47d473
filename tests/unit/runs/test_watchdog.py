"""Ten median steps of silence are said once, and called off when something is heard."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.runs.watchdog import PATIENCE, SHORTEST, Watchdog


def running(step_s: float, count: int = 5) -> tuple[Watchdog, float]:
    watch, now = Watchdog(), 100.0
    watch.heard({"kind": "state", "phase": "running"}, now)
    for _ in range(count):
        now += step_s
        watch.heard({"kind": "step", "step_s": step_s}, now)
    return watch, now


@given(st.floats(0.001, 100))
def test_only_ten_steps_of_silence_are_a_stall(step_s: float) -> None:
    watch, now = running(step_s)
    patience = max(PATIENCE * step_s, SHORTEST)
    assert watch.check(now + patience * 0.99) is None
    assert "no progress" in (watch.check(now + patience * 1.01) or "")
    assert watch.check(now + patience * 2) is None  # said once
    assert "goes on" in (watch.heard({"kind": "progress"}, now + patience * 3) or "")
    assert watch.heard({"kind": "progress"}, now + patience * 3) is None
    assert watch.check(now + patience * 4.1) is not None


def test_micro_batches_of_a_long_step_are_progress() -> None:
    watch, now = running(20.0)
    for _ in range(50):
        now += 30
        watch.heard({"kind": "progress"}, now)
        assert watch.check(now + 30) is None


def test_what_cannot_stall() -> None:
    assert Watchdog().check(1e9) is None  # nothing is known yet
    for phase in ("paused", "starting", "compiling", "recovering", "stopping", "finished"):
        watch, now = running(1.0)
        watch.heard({"kind": "state", "phase": phase}, now)
        assert watch.check(now + 1e6) is None
    watch, now = running(1.0)
    watch.heard({"kind": "start"}, now)  # another attempt: its steps may take longer
    assert watch.check(now + 1e6) is None


def test_what_the_supervisor_says_itself_is_no_sign_of_life() -> None:
    watch, now = running(1.0)
    for kind in ("telemetry", "alert"):
        watch.heard({"kind": kind}, now + 9)
    assert watch.check(now + 11) is not None
