"""Which checkpoint ``--resume`` means: that of the current run or the named one, never that of another."""

import os
from pathlib import Path

import pytest
import torch

from data.splits import tokenizer_of
from engine.checkpoints import checkpoint
from engine.checkpoints.evals import read_results
from engine.events.run_dir import RunDir
from engine.events.status import Launch, RunStatus
from engine.host.files import read_json, write_json
from engine.runs.find_checkpoint import find_checkpoint
from engine.runs.store import RunStore
from profiles import registry
from profiles.errors import UserError
from tui.cli.main import main


def put(folder: Path, step: int, age: float = 0.0) -> Path:
    tensors = {"model": {"w": torch.zeros(1)}, "optimizer": {"m": torch.zeros(1)}}
    path, _ = checkpoint.save(folder, step, tensors, {"step": step}, folder / "none")
    os.utime(path, (path.stat().st_mtime - age,) * 2)
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def launched(store: RunStore, out: Path) -> "Launched":
    return Launched(store, out)


class Launched:
    """Runs in the order in which they began; ``age``: of the newest, in seconds."""

    def __init__(self, store: RunStore, out: Path) -> None:
        self.store, self.out = store, out

    def __call__(self, name: str | None, age: float = 0.0) -> RunDir:
        spec = registry.load("cpu_demo", [f"train.out={self.out}"])
        run = self.store.create(spec, Launch(name=name), RunStatus(phase="failed"))
        state = read_json(run.state_path)
        write_json(run.state_path, {**state, "started": run.path.stat().st_mtime - age})
        return run


def test_latest_is_of_the_current_run_even_where_another_has_a_newer_checkpoint(
    launched: Launched, store: RunStore, out: Path
) -> None:
    launched("earlier", 50)
    launched("current", 40)
    own = put(out / "current", 5, 30)
    other = put(out / "earlier", 90)
    assert find_checkpoint("latest", store, out) == own
    assert find_checkpoint("earlier", store, out) == other  # by name
    assert find_checkpoint("latest", store, out, name="earlier") == other
    assert find_checkpoint(str(out / "earlier"), store, out) == find_checkpoint(str(other), store, out) == other


def test_a_run_that_has_saved_nothing_does_not_lead_to_another(launched: Launched, store: RunStore, out: Path) -> None:
    launched("earlier")
    put(out / "earlier", 90)
    current = launched(None)  # its first step was not finite
    with pytest.raises(UserError) as error:
        find_checkpoint("latest", store, out)
    assert str(error.value) == (
        f"latest: run {current.id}: has no checkpoint in {out / current.id}; name another one to continue it: earlier"
    )
    with pytest.raises(UserError, match=r"^latest: there is no checkpoint in .*/none"):
        find_checkpoint("latest", store, out, name="none")


def test_a_run_in_the_foreground_is_the_current_one_if_it_was_the_last(
    launched: Launched, store: RunStore, out: Path
) -> None:
    with pytest.raises(UserError, match=r"^latest: there is no checkpoint in "):
        find_checkpoint("latest", store, out)
    foreground = put(out, 7, 100)
    assert find_checkpoint("latest", store, out) == foreground
    launched("run", 50)
    own = put(out / "run", 3, 30)
    assert find_checkpoint("latest", store, out) == own
    later = put(out, 8)
    assert find_checkpoint("latest", store, out) == later


def test_what_is_neither_is_named(launched: Launched, store: RunStore, out: Path) -> None:
    launched("run")
    with pytest.raises(UserError, match=r"^'rum': is neither a checkpoint nor a run"):
        find_checkpoint("rum", store, out)
    with pytest.raises(UserError, match="ckpt_step_4: no such checkpoint"):
        find_checkpoint("ckpt_step_4", store, out)
    launched("ckpt_step_4")  # such a name is odd and allowed
    saved = put(out / "ckpt_step_4", 2)
    assert find_checkpoint("ckpt_step_4", store, out) == saved


def test_a_folder_with_the_name_of_a_run_does_not_hide_it(
    launched: Launched, store: RunStore, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched("mine")
    own = put(out / "mine", 5)
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "other"):  # an export of the run, beside its data
        (tmp_path / name).mkdir()
    assert find_checkpoint("mine", store, out) == own
    with pytest.raises(UserError, match="other: is not a checkpoint of mla-tui"):
        find_checkpoint("other", store, out)
    put(tmp_path / "mine", 7)
    assert find_checkpoint("mine", store, out).name == "ckpt_step_7"  # what is there comes first


def test_checkpoints_that_are_gone_are_not_said_to_have_never_been(
    launched: Launched, store: RunStore, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLA_TUI_HOME", str(store.home))
    run = launched("mine")
    assert main(["checkpoints", "mine"]) == 0
    assert capsys.readouterr().err == f"mla-tui: run mine: has no checkpoint in {out / 'mine'}\n"  # it has ended
    state = read_json(run.state_path)
    write_json(run.state_path, {**state, "checkpoint": str(out / "mine/ckpt_step_9")})
    said = (  # also of a removal that was cut off
        f"run mine: {out / 'mine'}: the checkpoints of this run are missing; mount its disk, or put the folder back;"
        f" if they were deleted, remove the run too: mla-tui rm {run.id}"
    )
    assert main(["checkpoints", "mine"]) == 0
    assert capsys.readouterr().err == f"mla-tui: {said}\n"
    with pytest.raises(UserError) as error:
        find_checkpoint("mine", store, out)
    assert str(error.value) == said
    out.write_text("")  # or a folder that belongs to somebody else: it is there, and cannot be read
    with pytest.raises(UserError) as error:
        find_checkpoint("mine", store, out)
    assert str(error.value) == said.replace("are missing", "cannot be read (Not a directory)")
    assert main(["rm", "mine"]) == 0
    kept = f"its checkpoints in {out / 'mine'} cannot be read (Not a directory) and are kept"
    assert capsys.readouterr().err == f"{run.id}: removed; {kept}\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_checkpoint_of_another_user_ends_neither_status_nor_a_run(tmp_path: Path) -> None:
    """Python's ``Path.is_file`` raises where a folder above may not be entered."""
    spec = registry.load("cpu_demo", [f"data.root={tmp_path}"])
    tmp_path.chmod(0o700)
    os.seteuid(65534)
    try:
        with pytest.raises(UserError, match="Permission denied"):
            read_results(tmp_path / "ckpt_step_1")
        assert tokenizer_of(spec) == tmp_path / "phase1" / "tokenizer.json"
        assert checkpoint.unreadable(tmp_path / "run") == "Permission denied"
    finally:
        os.seteuid(0)
