"""A run that is continued under its own name shares the folder of its checkpoints: each checkpoint says whose it is."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.checkpoints import checkpoint, retention
from engine.checkpoints.ownership import checkpoint_dir, checkpoints_of
from engine.checkpoints.resume_source import missing_source
from engine.events.log import LogWriter
from engine.events.run_dir import RunDir
from engine.events.status import Launch, RunStatus
from engine.events.types import Event
from engine.host.process import boot_id, host_name
from engine.runs.delete_checkpoint import delete
from engine.runs.find_checkpoint import find_checkpoint
from engine.runs.remove_run import plan_removal, remove_run
from engine.runs.store import RunStore
from engine.runs.supervision import resume_run
from engine.train.backends.build import build_backend
from engine.train.backends.ranks import SingleRank
from engine.train.checkpoint_folder import CheckpointFolder
from engine.train.loop import Trainer
from engine.train.reporter import SilentReporter
from engine.train.run_state import RunState
from profiles.errors import UserError
from tests.unit.checkpoints.facts import edit_facts
from tests.unit.train.tiny_runs import MakeSpec
from tui.cli.main import main


class Logging(SilentReporter):
    def __init__(self, run: RunDir) -> None:
        self.log = LogWriter(run.log_path, 1)

    def record(self, event: Event) -> None:
        self.log.write(event)


class Continued:
    """``first`` has trained to step 4, ``second`` to 8 from there, under the same name; each keeps two checkpoints."""

    def __init__(self, store: RunStore, nano: MakeSpec, tmp_path: Path) -> None:
        self.store, self.nano, self.out = store, nano, tmp_path / "models"
        self.first = self._trained(4, None)
        self.folder = checkpoint_dir(self.first)
        self.second = self._trained(8, self.folder / "ckpt_step_4")

    def _trained(self, steps: int, resume: Path | None) -> RunDir:
        spec = self.nano(f"steps={steps}", "save_every=1", "val_every=0", "keep=2")
        spec = replace(spec, train=replace(spec.train, out=str(self.out)))
        state = RunStatus(phase="finished", attempt=1, host=host_name(), boot=boot_id(), started=1.0)
        run = self.store.create(spec, Launch(name="x", resume=str(resume) if resume else None), state)
        backend = build_backend(spec, SingleRank())
        Trainer(RunState(spec), backend, Logging(run), self.out / "x", run=run.id).run(resume, None)
        return run


@pytest.fixture
def runs(store: RunStore, nano: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Continued:
    monkeypatch.setenv("MLA_TUI_HOME", str(store.home))
    return Continued(store, nano, tmp_path)


def listed(run: RunDir, capsys: pytest.CaptureFixture[str]) -> tuple[list[tuple[int, str | None]], str]:
    capsys.readouterr()
    assert main(["checkpoints", run.id, "--json"]) == 0
    printed = capsys.readouterr()
    return [(one["step"], one["run"]) for one in json.loads(printed.out)], printed.err


@pytest.mark.parametrize("says", [True, False], ids=["says", "earlier-version"])
def test_each_run_lists_its_own_checkpoints_and_where_it_began(
    runs: Continued, says: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (3, 4, 7, 8) if not says else ():
        edit_facts(runs.folder / f"ckpt_step_{step}", lambda facts: facts.pop("run"))
    first, second = runs.first.id, runs.second.id
    also = f"mla-tui: {runs.folder}: also holds"
    assert listed(runs.first, capsys) == ([(4, None), (3, None)], f"{also} 2 checkpoints of run {second}\n")
    assert listed(runs.second, capsys) == ([(8, None), (7, None), (4, first)], f"{also} 1 checkpoint of run {first}\n")
    for run, newest in ((runs.first, 4), (runs.second, 8)):
        assert find_checkpoint(run.id, runs.store, runs.out).name == f"ckpt_step_{newest}"
    assert plan_removal(runs.store, runs.first).checkpoints == 2
    assert main(["checkpoints", second]) == 0
    assert f"of run {first}, which this one has gone on from" in capsys.readouterr().out


def test_no_run_deletes_what_another_has_saved(runs: Continued) -> None:
    assert checkpoint.steps(runs.folder) == [3, 4, 7, 8]
    with pytest.raises(UserError, match="ckpt_step_4: is the newest of the run that saved it; it is kept"):
        delete(runs.store, runs.folder, 4)
    retention.apply_retention(runs.folder, 1, None, runs.first.id)
    assert checkpoint.steps(runs.folder) == [4, 7, 8]
    runs.second.remove()
    remove_run(runs.store, runs.first, with_checkpoints=True)
    assert checkpoint.steps(runs.folder) == [7, 8]
    assert checkpoint.latest(runs.folder) == runs.folder / "ckpt_step_8"


def test_a_save_does_not_replace_the_checkpoint_of_another_run(runs: Continued) -> None:
    """As where the folder of another run was moved to the place of its own."""
    first = runs.first.id
    tensors: dict[str, dict[str, Any]] = {"model": {}, "optimizer": {}}
    with pytest.raises(checkpoint.CheckpointError, match=f"ckpt_step_8: is there already, of run {runs.second.id}; "):
        checkpoint.save(runs.folder, 8, tensors, {"run": first}, None)
    checkpoint.verify(runs.folder / "ckpt_step_8")
    assert checkpoint.owner(checkpoint.save(runs.folder, 3, tensors, {"run": first}, None)[0]) == first


def test_a_restart_takes_no_checkpoint_of_another_run(runs: Continued) -> None:
    """As where the folder of another run was put in the place of its own."""
    saved, trainer = str(runs.folder / "ckpt_step_8"), CheckpointFolder(runs.folder, runs.second.id)
    trainer.note_saved(8)
    assert trainer.missing() == ""
    assert missing_source(runs.second, saved) is None
    for step in (4, 7, 8):
        shutil.rmtree(runs.folder / f"ckpt_step_{step}")
    first = runs.first.id
    why = f"{runs.folder}: the checkpoints of this run are missing; it holds 1 checkpoint of run {first}"
    assert missing_source(runs.second, saved) == why
    assert checkpoint.newest_intact(runs.folder, pytest.fail, checkpoints_of(runs.second).steps) is None
    assert trainer.missing() == f"{runs.folder}: the earlier checkpoints of this run were moved or deleted"


def test_a_cut_off_run_does_not_go_on_from_the_checkpoints_of_its_successor(runs: Continued) -> None:
    os.truncate(runs.first.log_path, 0)
    state = json.loads(runs.first.state_path.read_text())
    runs.first.state_path.write_text(json.dumps({**state, "phase": "running"}))
    with pytest.raises(UserError) as refused:
        resume_run(runs.first)
    assert str(refused.value) == (
        f"run {runs.first.id}: run {runs.second.id} has gone on from its checkpoints, up to step 8; go on from the last"
        f" one with: mla-tui launch --resume {runs.folder}, or from the last one of this run with: mla-tui launch"
        f" --resume {runs.folder}/ckpt_step_4 --name NAME"
    )
