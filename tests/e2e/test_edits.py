"""Tests ``mla-tui set``: edits of an active run."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.events.log import read_all
from engine.events.types import Edit
from tests.e2e.conftest import MakeWorkspace, Run, Workspace
from tests.e2e.replay import replayed_losses
from tests.events import of_kind

STEPS = 240


def micros(run: Run) -> dict[int, int]:
    return {record["step"]: record["micro"] for record in run.kind("step")}


@pytest.mark.parametrize("change", ["micro=2", pytest.param("accum=1", marks=pytest.mark.faults)])
def test_another_micro_batch_does_not_change_the_losses(workspace: Workspace, reference: Run, change: str) -> None:
    run = workspace.launch()
    run.wait_step(30)
    err = workspace.run("set", run.id, change).stderr
    run.wait_end()

    (edit,) = run.kind("edit")
    step, (old, new) = edit["step"], edit["changed"]["micro"]
    assert f"from step {step + 1}: micro {old} → {new}" in err
    assert (edit["ok"], edit["by"], old) == (True, "command line", 4)
    assert micros(run) == {n: old if n <= step else new for n in range(1, STEPS + 1)}
    plain, edited = reference.losses(), run.losses()
    assert [edited[n] for n in range(1, step + 1)] == [plain[n] for n in range(1, step + 1)]
    for n in range(step + 1, step + 61):
        assert edited[n] == pytest.approx(plain[n], rel=1e-5)
    assert [r["tokens"] for r in run.kind("step")] == [8 * 32 * n for n in range(1, STEPS + 1)]


@pytest.mark.faults  # the next one kills a trainer between edits too
def test_a_restart_replays_an_edit_at_its_step(workspace: Workspace) -> None:
    """Repeated steps use the micro they had before the kill, and give the same losses to the last bit."""
    run = workspace.launch("-s", "save_every=0", "-s", "steps=600")
    run.wait_step(20)
    workspace.run("checkpoint", run.id)  # the only one, so that the kill comes after the edit on any machine
    workspace.run("set", run.id, "micro=2")
    (edit,) = run.kind("edit")
    run.wait_step(edit["step"] + 20)
    run.kill("trainer")
    run.wait_end()

    first = {r["step"]: (r["loss"], r["micro"]) for r in run.kind("step") if r["attempt"] == 1}
    again = {r["step"]: (r["loss"], r["micro"]) for r in run.kind("step") if r["attempt"] == 2}
    repeated = first.keys() & again.keys()
    assert len(repeated) >= 20
    assert {n: first[n] for n in repeated} == {n: again[n] for n in repeated}
    assert {again[n][1] for n in again if n > edit["step"]} == {2}
    assert run.status()["micro"] == 2
    assert len(run.kind("edit")) == 1


def test_replaying_the_edits_of_a_run_gives_its_losses(workspace: Workspace, tmp_path: Path) -> None:
    """Context, sequences and learning rate are edited, and the trainer is killed in between."""
    run = workspace.launch("-s", "steps=100000")  # it is stopped: no command may come after its end
    for step, changes in (
        (30, ["context=16", "--unlock"]),
        (60, ["lr_scale=0.5"]),
        (100, ["sequences=16", "micro=2", "--unlock"]),
    ):
        run.wait_step(step)
        workspace.run("set", run.id, *changes)
    run.wait_step(run.kind("edit")[-1]["step"] + 10)
    run.kill("trainer")
    run.wait_step(run.kind("edit")[-1]["step"] + 30, attempt=2)
    workspace.run("set", run.id, "context=48", "accum=1", "--unlock")
    run.wait_step(run.kind("edit")[-1]["step"] + 30, attempt=2)
    workspace.run("stop", run.id)
    run.wait_end("stopped")

    edits = of_kind(Edit, read_all(run.run_dir.log_path))
    assert [edit.ok for edit in edits] == [True] * 4
    assert run.status()["context"] == 48
    spec = run.run_dir.spec().with_values("test", train={"stop_step": max(run.losses())})
    assert run.losses() == replayed_losses(spec, tmp_path / "replay", edits)
    tokens = [record["tokens"] for record in run.kind("step") if record["attempt"] == 2]
    assert tokens == sorted(tokens)


def test_a_stop_step_ends_the_run_there(workspace: Workspace) -> None:
    run = workspace.launch("-s", "steps=100000", "-s", "val_every=0", "-s", "save_every=0")
    run.wait_step(10)
    err = workspace.run("set", run.id, "stop_step=400", "save_every=150").stderr
    assert "stop_step 0 → 400" in err
    status = run.wait_end("stopped")
    assert (status["step"], status["reason"]) == (400, "reached stop_step = 400")
    assert [record["step"] for record in run.kind("checkpoint")] == [150, 300, 400]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["micro=3"], "micro"),
        (["micro=0"], "micro"),
        (["micro=many"], "many"),
        (["accum=3"], "accum"),
        (["micro=2", "accum=2"], "accum"),
        (["context=16"], "--unlock"),
        (["sequences=16"], "--unlock"),
        (["context=999999", "--unlock"], "context"),
        (["lr_scale=-1"], "lr_scale"),
        (["stop_step=1"], "behind the run"),
        (["stop_step=-1"], "stop_step: -1 is not in 0.."),
        (["stop_step=1000001"], "1000001 is beyond the last step, 1000000; use a smaller one, or 0 for no stop"),
        (["lr=1"], "lr"),
        (["warp=9"], "warp"),
        (["micro"], "micro"),
    ],
)
def test_an_invalid_edit_is_refused_in_one_line(long_run: Run, changes: list[str], message: str) -> None:
    before = long_run.wait_step(1)
    process = long_run.workspace.start("set", long_run.id, *changes)
    out, err = process.communicate(timeout=90)
    assert process.returncode in (1, 2)
    assert (out, len(err.splitlines())) == ("", 1), err
    assert message in err
    assert "Traceback" not in err
    after = long_run.status()
    assert after["phase"] == "running"
    assert (after["micro"], after["accum"], after["context"]) == (4, 2, 32)
    assert before["micro"] == 4
    assert not [edit for edit in long_run.kind("edit") if edit["ok"]]


@pytest.fixture(scope="module")
def long_run(make_workspace: MakeWorkspace) -> Run:
    """A run that stays active while invalid edits are sent to it."""
    return make_workspace().launch("-s", "steps=1000000", "-s", "save_every=0", "-s", "val_every=0")


def test_a_wsd_run_is_lengthened_and_sent_into_its_decay(workspace: Workspace) -> None:
    run = workspace.launch("-s", "steps=100000", "-s", "save_every=0", "-s", "optim.schedule=wsd", "-s", "decay=5")
    run.wait_step(20)
    workspace.run("set", run.id, "steps=200000")
    assert run.status()["steps"] == 200_000
    said = workspace.run("set", run.id, "decay=now").stderr
    status = run.wait_end()
    assert f"steps 200000 → {status['step']}" in said and status["steps"] == status["step"] < 100_000
    rates = [step["lr"] for step in run.kind("step")][-7:]
    assert rates[0] == rates[1] == 3e-3 and sorted(rates[1:], reverse=True) == rates[1:]
    assert rates[-1] == pytest.approx(3e-4)


def test_an_ended_run_refuses_edits(reference: Run) -> None:
    err = reference.workspace.run("set", reference.id, "micro=2", code=1).stderr
    assert "has finished" in err
    assert len(err.splitlines()) == 1
