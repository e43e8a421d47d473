"""Tests that mistakes and damaged files give one line that says what is wrong, an exit status, and no leftovers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests.e2e.conftest import Run, WaitFor, Workspace
from tui.cli.main import main

Args = tuple[object, ...]


def train_shard(workspace: Workspace) -> Path:
    return workspace.data / "phase1" / "train" / "phase1-train-000.bin"


def no_data(workspace: Workspace) -> Args:
    return ("-s", f"data.root={workspace.root / 'nowhere'}")


def no_phase(workspace: Workspace) -> Args:
    return ("-s", "data.phase=phase9")


def empty_shard(workspace: Workspace) -> None:
    train_shard(workspace).write_bytes(b"")


def odd_bytes(workspace: Workspace) -> None:
    train_shard(workspace).write_bytes(bytes(20_001))


def foreign_id(workspace: Workspace) -> None:
    ids = np.zeros(20_000, "<u2")
    ids[9_876] = 999
    ids.tofile(train_shard(workspace))


def padded_ids(workspace: Workspace) -> None:
    ids = (np.arange(20_000) * 7 % 256).astype("<i4")
    ids[-100:] = -100
    ids.tofile(train_shard(workspace))


def truncated_shard(workspace: Workspace) -> None:
    header = np.zeros(256, "<i4")
    header[:3] = 20240520, 1, 5000
    train_shard(workspace).write_bytes(header.tobytes() + bytes(9_000))


def no_validation(workspace: Workspace) -> None:
    (workspace.data / "phase1" / "val" / "phase1-val-000.bin").unlink()


def long_context(workspace: Workspace) -> Args:
    return ("-s", "context=30000")


def unknown_key(workspace: Workspace) -> Args:
    return ("-s", "batch.mirco=2")


def unknown_key_in_the_profile(workspace: Workspace) -> None:
    workspace.write_profile("[batches]\nmicro = 2\n")


def broken_profile(workspace: Workspace) -> None:
    workspace.profile.write_text("[model\n")


def not_in_range(workspace: Workspace) -> Args:
    return ("-s", "micro=0")


def not_dividing(workspace: Workspace) -> Args:
    return ("-s", "micro=3")


def not_a_number(workspace: Workspace) -> Args:
    return ("-s", "steps=many")


def file_in_the_way(workspace: Workspace) -> None:
    (workspace.root / "models").write_text("")


def mlx_with_8_bit_states(workspace: Workspace) -> Args:
    return ("--backend", "mlx", "-s", "strategy=states8bit")


def a_contradicting_deepspeed_file(workspace: Workspace) -> Args:
    (workspace.root / "ds.json").write_text('{"gradient_clipping": 7}')
    return ("--backend", "deepspeed", "-s", "deepspeed_config=ds.json")


def resume_of_nothing(workspace: Workspace) -> Args:
    return ("--resume", "latest")


def resume_of_no_checkpoint(workspace: Workspace) -> Args:
    (workspace.root / "elsewhere").mkdir()
    return ("--resume", workspace.root / "elsewhere")


def init_from_nothing(workspace: Workspace) -> Args:
    return ("--init-from", workspace.root / "nowhere")


def resume_and_init(workspace: Workspace) -> Args:
    return ("--resume", "latest", "--init-from", workspace.root)


def three_ranks(workspace: Workspace) -> Args:
    return ("-s", "gpus_per_node=3")


def offload(workspace: Workspace) -> Args:
    return ("--backend", "torch", "-s", "strategy=offload")


class Case(NamedTuple):
    make: Callable[[Workspace], Args | None]
    message: str  # part of the line
    code: int


CASES = [
    Case(no_data, "nowhere", 1),
    Case(no_phase, "phase9", 1),
    Case(empty_shard, "phase1-train-000.bin", 1),
    Case(odd_bytes, "20001 bytes", 1),
    Case(foreign_id, "token 9876 is id 999, outside the model's vocabulary of 256", 1),
    Case(padded_ids, "token 19900 is", 1),
    Case(truncated_shard, "phase1-train-000.bin", 1),
    Case(no_validation, "phase1/val", 1),
    Case(long_context, "30000", 1),
    Case(unknown_key, "did you mean batch.micro", 2),
    Case(unknown_key_in_the_profile, "did you mean batch", 2),
    Case(broken_profile, "nano.toml", 2),
    Case(not_in_range, "1..4096", 2),
    Case(not_dividing, "use 1, 2, 4, 8", 2),
    Case(not_a_number, "'many'", 2),
    Case(file_in_the_way, "models is not a directory", 1),
    Case(mlx_with_8_bit_states, "memory.strategy: states8bit is not supported by --backend mlx", 1),
    Case(a_contradicting_deepspeed_file, "gradient_clipping: 7 contradicts", 2),
    Case(resume_of_nothing, "latest", 1),
    Case(resume_of_no_checkpoint, "elsewhere", 1),
    Case(init_from_nothing, "nowhere", 1),
    Case(resume_and_init, "--init-from", 2),
    Case(three_ranks, "4 × 3 ranks does not divide the 8 sequences", 2),
    Case(offload, "offload needs --backend deepspeed", 1),
]


@pytest.mark.parametrize("command", ["launch", "train"])
@pytest.mark.parametrize("case", CASES, ids=[case.make.__name__ for case in CASES])
def test_a_mistake_is_reported_in_one_line(
    workspace: Workspace,
    command: str,
    case: Case,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The command runs in this process; others in this file are started."""
    args = case.make(workspace) or ()
    monkeypatch.chdir(workspace.root)
    for name in ("MLA_TUI_HOME", "XDG_CONFIG_HOME", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, workspace.env[name])
    before = sorted(workspace.root.rglob("*"))
    try:
        code = main([command, "-p", "nano", "--name", "run", *map(str, args)])
    except SystemExit as ended:
        code = int(ended.code or 0)
    out, err = capsys.readouterr()
    assert (code, out, len(err.splitlines())) == (case.code, "", 1), err
    assert case.message in err
    assert sorted(workspace.root.rglob("*")) == before


@pytest.mark.parametrize("command", ["launch", "train", "plan"])
def test_an_unknown_profile_is_reported_with_the_nearest_name(workspace: Workspace, command: str) -> None:
    workspace.assert_refused(command, "-p", "nanno", code=2, message="did you mean nano?")


@pytest.mark.parametrize(
    "command",
    [("ls", "extra"), ("nonsense",), ("launch", "--nonsense"), ("status",), ("watch", "x", "--from", "here")],
    ids=" ".join,
)
def test_a_wrong_command_line_is_a_usage_error(workspace: Workspace, command: tuple[str, ...]) -> None:
    done = workspace.run(*command, code=2)
    assert done.stderr.startswith("usage: mla-tui")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["a/b", ".hidden", "", ".."])
def test_a_name_must_be_a_plain_word(workspace: Workspace, name: str) -> None:
    workspace.assert_refused("launch", "-p", "nano", "--name", name, code=2, message="--name")


@pytest.mark.parametrize("command", ["launch", "train"])
def test_a_name_with_checkpoints_is_refused(reference: Run, command: str) -> None:
    workspace = reference.workspace
    done = workspace.run(command, "-p", "nano", "--name", "run", code=1)
    assert len(done.stderr.splitlines()) == 1
    assert "holds checkpoints of an earlier run" in done.stderr


def test_resuming_from_an_earlier_checkpoint_needs_another_folder(reference: Run) -> None:
    workspace = reference.workspace
    done = workspace.run("launch", "--resume", workspace.out / "run" / "ckpt_step_200", "--name", "run", code=1)
    resumes, refused = done.stderr.splitlines()
    assert resumes.startswith("mla-tui: resume: the checkpoint of run at step 200")
    assert "later checkpoints, up to step 240" in refused


def test_the_name_of_an_active_run_is_refused(workspace: Workspace) -> None:
    run = workspace.launch("-s", "steps=1000000", "-s", "save_every=0", "-s", "val_every=0")
    for command in ("launch", "train"):
        done = workspace.run(command, "-p", "nano", "--name", "run", code=1)
        assert len(done.stderr.splitlines()) == 1
        assert "checkpoints there" in done.stderr
        run.wait_step(1)  # train finds the other run by its lock on the folder
    assert [path.name for path in (workspace.home / "runs").iterdir()] == [run.id]


def test_a_home_that_is_a_file_is_reported(workspace: Workspace) -> None:
    workspace.home.write_text("")
    for command in (("ls",), ("launch", "-p", "nano"), ("status", "latest")):
        done = workspace.run(*command, code=1)
        assert len(done.stderr.splitlines()) == 1
        assert str(workspace.home) in done.stderr


# -- errors that only the run itself can detect


def test_a_run_whose_shard_is_cut_needs_attention_and_says_why(workspace: Workspace, wait_for: WaitFor) -> None:
    run = workspace.launch("-s", "steps=1000000", "-s", "save_every=0", "-s", "val_every=0")
    run.wait_step(1)
    shard = train_shard(workspace)
    os.truncate(shard, 4096)
    wait_for("attention", lambda: run.phase() == "needs-attention")
    status = run.status()
    assert f"{shard}: has 4096 bytes, and had 40000 when it was opened" in status["reason"]
    assert status["attempt"] == 1
    assert "Traceback" not in run.run_dir.console_path.read_text()


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_damaged_checkpoint_is_not_resumed(reference: Run, tmp_path: Path, damage: str) -> None:
    workspace = reference.workspace
    broken = tmp_path / "ckpt_step_240"
    shutil.copytree(workspace.out / "run" / "ckpt_step_240", broken)
    file = broken / "optimizer.safetensors"
    content = bytearray(file.read_bytes())
    if damage == "gone":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(content[:-10])
    else:
        content[-10] ^= 1
        file.write_bytes(content)
    done = workspace.run("train", "--resume", broken, "--name", f"from-{damage}", "-s", "steps=250", code=1)
    *resumes, refused = done.stderr.splitlines()  # a wrong size is found before the run is described
    assert all(line.startswith("mla-tui: resume: the checkpoint of ") for line in resumes)
    assert len(resumes) == (damage == "flipped")
    assert "optimizer.safetensors: is not what was saved" in refused


def test_a_failing_compiler_is_named_with_the_setting_that_avoids_it(workspace: Workspace) -> None:
    workspace.env |= {"CXX": str(shutil.which("false")), "TORCHINDUCTOR_CACHE_DIR": str(workspace.root / "cache")}
    done = workspace.run("train", "-p", "nano", "--name", "run", "-s", "train.compile=on", code=1)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("mla-tui: train.compile: ") and last.endswith("use -s train.compile=off")
    assert not workspace.out.exists()


def test_a_home_directory_that_is_not_known_is_named(workspace: Workspace) -> None:
    workspace.assert_refused("launch", "-p", "nano", "-s", "out=~no-such-user/x", code=1, message="train.out: ~no-such")
    workspace.env["MLA_TUI_HOME"] = "~no-such-user/home"
    done = workspace.run("ls", code=1)
    assert done.stderr.splitlines() == [
        "mla-tui: MLA_TUI_HOME: ~no-such-user/home: there is no home directory for ~; set HOME, or write a full path"
    ]


def test_an_encoding_that_lacks_characters_gets_question_marks(workspace: Workspace) -> None:
    workspace.env["PYTHONIOENCODING"] = "ascii"
    done = workspace.run("plan", "-p", "nano")
    assert done.stderr == "" and "?" in done.stdout


def test_no_file_of_a_run_is_writable_for_every_user(workspace: Workspace) -> None:
    done = workspace.run("train", "-p", "nano", "--name", "run", "-s", "steps=2", umask=0)
    assert "optim.warmup: 20 steps of warm-up are more than train.steps = 2: the rate ends at 0.0003" in done.stderr
    made = [path for path in workspace.out.rglob("*") if not path.is_symlink()]
    assert made and not [path for path in made if path.stat().st_mode & 0o002]
