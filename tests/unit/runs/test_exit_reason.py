"""The exit reason of a trainer that logged none, from what the kernel knows. Its counters are replaced by files."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from engine.events.exit_codes import EXIT_RETRY
from engine.runs import exit_reason as module
from engine.runs.exit_reason import OomKillCounter, exit_reason
from engine.runs.trainer_process import TrainerProcess
from tests.unit.conftest import Make


@pytest.fixture
def counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The counters of the machine and of the trainer's cgroup (tests/e2e/test_exits.py raises the real ones)."""
    machine, cgroup = tmp_path / "vmstat", tmp_path / "memory.events"
    machine.write_text("pgfault 17\noom_kill 3\n")
    cgroup.write_text("low 0\noom 1\noom_kill 1\noom_group_kill 0\n")
    monkeypatch.setattr(module, "_MACHINE", machine)
    monkeypatch.setattr(module, "_counter_file", lambda pid: cgroup)
    return machine, cgroup


def test_without_an_oom_kill_the_signal_is_the_reason(counters: tuple[Path, Path]) -> None:
    found = exit_reason(-9, OomKillCounter(1), Path("console"))
    assert (found.signal, found.why, found.out_of_memory) == ("SIGKILL", "killed (SIGKILL)", False)
    adopted = exit_reason(None, OomKillCounter(1), Path("console"))
    assert adopted.why.startswith("killed or crashed; its exit status is not known, because its supervisor was restart")
    assert exit_reason(3, OomKillCounter(1), Path("console")).why == "exited with code 3; see console"


@pytest.mark.parametrize(("code", "signal"), [(137, "SIGKILL"), (139, "SIGSEGV"), (247, "SIGKILL"), (192, "SIGRTMAX")])
def test_an_exit_code_that_stands_for_a_signal_names_it(code: int, signal: str) -> None:
    """A shell exits with 128 + n, Python with -n, when the program that they ran was killed."""
    assert exit_reason(code, None, Path("console")).why == f"exited with code {code}, as after {signal}; see console"


def test_a_trainer_that_could_not_open_its_log_has_said_why(tmp_path: Path) -> None:
    console = tmp_path / "20260101-000000-p" / "console.log"
    console.parent.mkdir()
    said = "[Errno 24] Too many open files: 'events.jsonl'"
    console.write_text(f"a warning\n{console.parent.name}: {said}\n")
    assert exit_reason(EXIT_RETRY, None, console).why == said
    assert exit_reason(1, None, console).why == f"exited with code 1; see {console}"
    console.write_text(f"{console.parent.name}: of an earlier attempt\n  raise ValueError: x\n")
    assert exit_reason(EXIT_RETRY, None, console).why == f"exited with code {EXIT_RETRY}; see {console}"


def test_a_killed_rank_zero_is_named_as_its_launcher_reports_it(tmp_path: Path) -> None:
    console = tmp_path / "console.log"
    console.write_text("  traceback : Signal 6 (SIGABRT) received by PID 26\n" + "x" * (1 << 16))
    with console.open("a") as file:
        file.write("  exitcode  : -9 (pid: 262)\n  traceback : Signal 9 (SIGKILL) received by PID 262\n")
    found = exit_reason(1, None, console, rank_zero=262)
    assert (found.code, found.signal, found.why) == (1, "SIGKILL", "rank 0 was killed (SIGKILL)")
    assert exit_reason(1, None, console, rank_zero=26).why == f"exited with code 1; see {console}"


def test_an_oom_kill_in_the_cgroup_is_certain(counters: tuple[Path, Path]) -> None:
    counter = OomKillCounter(1)
    counters[1].write_text("oom_kill 2\n")
    for code in (-9, None, 1):
        found = exit_reason(code, counter, Path("console"))
        assert found.out_of_memory
        assert found.why == module.OOM_IN_CGROUP
    assert not exit_reason(-15, counter, Path("console")).out_of_memory  # SIGTERM is never out of memory


def test_an_oom_kill_in_another_cgroup_is_ignored(counters: tuple[Path, Path]) -> None:
    counter = OomKillCounter(1)
    counters[0].write_text("oom_kill 4\n")
    assert not exit_reason(-9, counter, Path("console")).out_of_memory


def test_without_a_cgroup_an_oom_kill_on_the_machine_is_likely(
    counters: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_counter_file", lambda pid: None)
    counter = OomKillCounter(1)
    assert not exit_reason(-9, counter, Path("console")).out_of_memory
    counters[0].write_text("oom_kill 4\n")
    assert exit_reason(-9, counter, Path("console")).why == module.OOM_ON_MACHINE


def test_the_machine_counter_is_used_when_the_cgroup_has_vanished(counters: tuple[Path, Path]) -> None:
    counter = OomKillCounter(1)
    counters[1].unlink()
    assert not exit_reason(-9, counter, Path("console")).out_of_memory
    counters[0].write_text("oom_kill 4\n")
    assert exit_reason(-9, counter, Path("console")).why == module.OOM_ON_MACHINE


async def test_a_trainer_that_cannot_be_started_has_a_reason(make_run: Make) -> None:
    """As where no descriptor, process or memory is left, or the environment that the run was started from is gone."""
    trainer = TrainerProcess(make_run())
    trainer.start([str(Path("/nowhere/python"))], 1, {}, ())
    reason = await trainer.wait()
    assert (reason.code, reason.signal) == (None, None)
    assert reason.why == "cannot start the trainer: [Errno 2] No such file or directory: '/nowhere/python'"
    trainer.start([sys.executable, "-c", "raise SystemExit(3)"], 2, {}, ())
    assert (await trainer.wait()).code == 3


@pytest.mark.parametrize(("kills", "why"), [(True, "killed (SIGKILL)"), (False, "killed (SIGTERM)")])
async def test_a_launcher_that_we_end_has_not_failed(make_run: Make, kills: bool, why: str) -> None:
    """torchrun exits with 1 where its ranks were killed."""
    run = make_run()
    trainer = TrainerProcess(run)
    launcher = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(1)); print(1, flush=True)"
    trainer.start([sys.executable, "-c", f"{launcher}; time.sleep(60)"], 1, {}, ())
    while not run.console_path.stat().st_size:
        await asyncio.sleep(0.01)
    trainer.kill(launched=True) if kills else trainer.kill_launcher()
    assert (await trainer.wait()).why == why
