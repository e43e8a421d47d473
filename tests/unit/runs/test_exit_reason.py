"""What is said of a trainer that could not speak, by what the kernel tells. Its counters are files at another place."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.runs import exit_reason as module
from engine.runs.exit_reason import OomKillCounter, death


@pytest.fixture
def counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The machine's counter, and that of the trainer's cgroup (the real ones rise in tests/e2e/test_deaths.py)."""
    machine, cgroup = tmp_path / "vmstat", tmp_path / "memory.events"
    machine.write_text("pgfault 17\noom_kill 3\n")
    cgroup.write_text("low 0\noom 1\noom_kill 1\noom_group_kill 0\n")
    monkeypatch.setattr(module, "_MACHINE", machine)
    monkeypatch.setattr(module, "_counter_of", lambda pid: cgroup)
    return machine, cgroup


def test_without_a_kill_a_signal_is_a_signal(counters: tuple[Path, Path]) -> None:
    found = death(-9, OomKillCounter(1), Path("console"))
    assert (found.signal, found.why, found.out_of_memory) == ("SIGKILL", "killed by SIGKILL", False)
    assert death(None, OomKillCounter(1), Path("console")).why == "killed, cause unknown"
    assert death(3, OomKillCounter(1), Path("console")).why == "ended with code 3; see console"


def test_a_kill_in_the_cgroup_is_sure(counters: tuple[Path, Path]) -> None:
    kills = OomKillCounter(1)
    counters[1].write_text("oom_kill 2\n")
    for code in (-9, None, 1):
        found = death(code, kills, Path("console"))
        assert found.out_of_memory
        assert found.why == module.IN_CGROUP
    assert not death(-15, kills, Path("console")).out_of_memory  # SIGTERM is nobody's want of memory


def test_a_kill_in_another_cgroup_is_none_of_ours(counters: tuple[Path, Path]) -> None:
    kills = OomKillCounter(1)
    counters[0].write_text("oom_kill 4\n")
    assert not death(-9, kills, Path("console")).out_of_memory


def test_without_a_cgroup_a_kill_on_the_machine_is_likely(
    counters: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_counter_of", lambda pid: None)
    kills = OomKillCounter(1)
    assert not death(-9, kills, Path("console")).out_of_memory
    counters[0].write_text("oom_kill 4\n")
    assert death(-9, kills, Path("console")).why == module.ON_MACHINE


def test_of_a_cgroup_that_went_with_its_last_process_the_machine_is_asked(counters: tuple[Path, Path]) -> None:
    kills = OomKillCounter(1)
    counters[1].unlink()
    assert not death(-9, kills, Path("console")).out_of_memory
    counters[0].write_text("oom_kill 4\n")
    assert death(-9, kills, Path("console")).why == module.ON_MACHINE
