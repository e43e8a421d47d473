"""Something removes, truncates, replaces or swaps files of state and models at random moments while runs live.

Whatever it takes: never two writers, never a silent restart from nothing, never a lost acknowledged command.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time
from pathlib import Path

import psutil
import pytest

from engine.events.phases import DAMAGED, NEEDS_ATTENTION, PHASES
from engine.host.programs import SUPERVISOR
from tests.e2e.conftest import MakeWorkspace, Run, WaitFor

DRAWS = int(os.environ.get("MLA_CLEANER_DRAWS", "200"))
DRAWS_A_RUN = 10


class Cleaner:
    """Damages one file of a run a time."""

    def __init__(self, run: Run, seed: int) -> None:
        self.random = random.Random(seed)
        self.done: list[str] = []
        self._run = run
        self._models = run.workspace.out / "run"

    def strike(self) -> None:
        files = sorted(
            path for path in (*self._run.run_dir.path.rglob("*"), *self._models.rglob("*")) if path.is_file()
        )
        if not files:
            return
        path, other = self.random.choice(files), self.random.choice(files)
        action = self.random.choice(["remove", "truncate", "replace", "swap"])
        self.done.append(f"{action} {path.name} ({other.name})")
        with contextlib.suppress(FileNotFoundError):  # a temporary file
            self._damage(action, path, other)

    def _damage(self, action: str, path: Path, other: Path) -> None:
        if action == "remove":
            path.unlink()
        elif action == "truncate":
            os.truncate(path, self.random.randrange(path.stat().st_size + 1))
        elif action == "replace":
            new = path.with_name("replacement")
            new.write_bytes(self.random.randbytes(path.stat().st_size))
            new.rename(path)
        else:
            between = path.with_name("between")
            shutil.copy(path, between)
            shutil.copy(other, path.with_name("replacement"))
            path.with_name("replacement").rename(path)
            between.rename(other)


def processes(run: Run, module: str) -> list[int]:
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "status"]):
        words = process.info["cmdline"] or []
        alive = process.info["status"] != psutil.STATUS_ZOMBIE
        if alive and module in words and str(run.run_dir.path) in words:
            found.append(process.info["pid"])
    return found


def alone(run: Run) -> bool:
    return len(processes(run, "engine.train")) <= 1 and len(processes(run, SUPERVISOR)) <= 1


@pytest.mark.faults
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(max(1, DRAWS // DRAWS_A_RUN)))
def test_a_cleaner_finds_no_file_that_matters(make_workspace: MakeWorkspace, seed: int, wait_for: WaitFor) -> None:
    workspace = make_workspace()
    run = workspace.launch("-s", "steps=1000000", "-s", "save_every=200", "-s", "val_every=0", "-s", "keep=3")
    run.wait_step(1)
    cleaner = Cleaner(run, seed)
    edited = 0
    try:
        over = (*(phase.name for phase in PHASES.values() if phase.ended), DAMAGED)
        for draw in range(min(DRAWS, DRAWS_A_RUN)):
            time.sleep(cleaner.random.uniform(0.0, 0.5))
            if run.run_dir.summary().phase in over:  # for example because no checkpoint is intact
                break
            cleaner.strike()
            if cleaner.random.random() < 0.3 and run.process("trainer"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(run.pid("trainer"), signal.SIGKILL)
                cleaner.done.append("kill the trainer")
            elif run.run_dir.summary().phase not in (*over, NEEDS_ATTENTION):
                done = workspace.start("set", run.id, f"val_every={1000 + draw}")
                out, err = done.communicate(timeout=90)
                if done.returncode == 0 and "is checked" not in err:
                    edited = 1000 + draw
                cleaner.done.append(f"set val_every={1000 + draw}: {out}{err}")
            # A second process may start, and ends once it finds that another one has the run. ``assert_history`` says
            # whether it has written.
            wait_for("one trainer and one supervisor", lambda: alone(run))
        if run.run_dir.summary().phase not in over:
            workspace.start("stop", run.id).communicate(timeout=120)
        wait_for("the end", lambda: run.run_dir.summary().phase in over)
        assert_history(run, edited)
    except BaseException:
        print("\n".join([*cleaner.done, str(run.run_dir.summary()), *map(str, run.events()[-8:])]))
        print(
            run.run_dir.console_path.read_text(errors="replace") if run.run_dir.console_path.exists() else "no console"
        )
        raise


def assert_history(run: Run, edited: int) -> None:
    attempts = [record["attempt"] for record in run.kind("step")]
    assert attempts == sorted(attempts), "two trainers wrote the log"
    saved: list[int] = []
    for record in run.events():
        if record["kind"] == "checkpoint" and record["ok"]:
            saved.append(record["step"])
        elif record["kind"] == "start" and record["attempt"] > 1 and not record["resumed_from"]:
            assert not saved, f"attempt {record['attempt']} began at nothing"
    edits = [record["changed"]["val_every"][1] for record in run.kind("edit") if "val_every" in record["changed"]]
    assert not edited or edited in edits[-1:], "an acknowledged edit was lost"  # a restart replays it at its step
