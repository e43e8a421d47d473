"""Tests ``mla-tui sweep``: it queues runs, goes on after an interrupt, and ends in a table and a profile."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from statistics import fmean

from msgspec.structs import replace

from engine.events.status import Summary
from engine.runs.store import RunStore
from tests.e2e.conftest import DEADLINE, Run, WaitFor, Workspace
from tui.cli.commands.sweep import progress_text
from tui.text.format import count

SWEEP = ("sweep", "-p", "nano", "-s", "steps=60", "-s", "val_every=60", "-s", "save_every=0", "-s", "final_lr=0")


def run_ids(workspace: Workspace) -> list[str]:
    store = RunStore(workspace.home)
    return sorted(store.ids(), key=lambda id: str(Run(workspace, id).run_dir.name))


def test_an_interrupted_sweep_goes_on_and_writes_the_best(workspace: Workspace, wait_for: WaitFor) -> None:
    command = (*SWEEP, "-s", "optim.lr=1e-9,3e-3", "--name", "rates")
    first = workspace.start(*command)
    ids = wait_for("both runs", lambda: (found := run_ids(workspace))[1:] and found)
    first.send_signal(signal.SIGINT)
    _, err = first.communicate(timeout=DEADLINE)
    assert first.returncode == 130 and err.splitlines()[-1].endswith("for the table: mla-tui " + " ".join(command))
    done = workspace.run(*command)
    assert run_ids(workspace) == ids  # nothing was queued again
    header, best, other, *_ = done.stdout.splitlines()
    assert header.split() == ["run", "values", "val", "loss", "bits/byte", "tok/s"]
    assert best.split()[:2] == ["rates-2", "optim.lr=3e-3"] and other.split()[:2] == ["rates-1", "optim.lr=1e-9"]
    for id in ids:
        Run(workspace, id).wait_end()
    losses = [Run(workspace, id).kind("val")[-1]["loss"] for id in ids]
    assert sorted(f"{loss:.3f}" for loss in losses) == sorted(row.split()[2] for row in (best, other))
    assert losses[1] < losses[0]
    speeds = [fmean(step["tok_s"] for step in Run(workspace, id).kind("step")) for id in ids]
    assert [other.split()[4], best.split()[4]] == [count(speed) for speed in speeds]  # not that of the last step
    (path,) = re.findall(r"written: (.*?);", done.stdout)
    written = Path(path).read_text()
    assert "Best of a sweep" in written and "lr = 0.003" in written
    again = workspace.run("plan", "-p", "rates", "--json")
    assert '"lr": 0.003' in again.stdout
    workspace.assert_refused(*command, code=1, message="exists; choose another --name, or replace it with --force")
    changed = (*SWEEP, "-s", "optim.lr=1e-4,3e-3", "--name", "rates", "--force")
    workspace.assert_refused(*changed, code=1, message="run rates-1 is there with optim.lr = 1e-09, not 0.0001")
    (workspace.data / "phase1" / "train" / "more.bin").write_bytes(bytes(400))
    message = "run rates-1 has read other data: since then train/more.bin is new; choose another --name"
    workspace.assert_refused(*command, "--force", code=1, message=message)
    workspace.write_profile(val_sequences=4)  # the runs that are there say nothing of what it is now
    message = "run rates-1 is there with train.val_sequences = 8, not 4; choose another --name"
    workspace.assert_refused(*command, "--force", code=1, message=message)


def test_the_progress_says_why_no_run_goes_on() -> None:
    waits = Summary(id="1", name="a-1", phase="starting", reason="waits for cpu, in use by run x", steps=60)
    assert progress_text(2, [waits, waits]) == "0 of 2 runs ended; a-1: starting: waits for cpu, in use by run x"
    runs = replace(waits, phase="running", reason="was not paused", step=30)
    assert progress_text(2, [runs]) == "1 of 2 runs ended; a-1: step 30 of 60"


def test_what_cannot_be_swept_is_refused_in_one_line(workspace: Workspace) -> None:
    workspace.assert_refused(*SWEEP, code=2, message="nothing to compare; separate values by commas")
    workspace.assert_refused(*SWEEP, "-s", "lr=1e-3,x", code=2, message="optim.lr: 'x' is not a number")
    workspace.assert_refused(*SWEEP, "-s", "lr=1e-3,0.001", code=2, message="a value is there twice")
    workspace.assert_refused(*SWEEP, "-s", "train.steps=5,6", code=2, message="-s train.steps: is given twice, as")
    many = ",".join(str(n) for n in range(65))
    workspace.assert_refused(*SWEEP, "-s", f"seed={many}", code=2, message="65 runs are more than 64")
    none = [word.replace("val_every=60", "val_every=0") for word in SWEEP]
    workspace.assert_refused(*none, "-s", "lr=1e-3,2e-3", code=2, message="train.val_every is 0")
