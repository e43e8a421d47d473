"""A checkpoint of another format is refused in one line that names the version that wrote it, and left as it is."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.checkpoints import checkpoint, retention
from engine.checkpoints.inventory import inventory
from engine.events.status import Launch, RunStatus
from engine.runs.store import RunStore
from engine.train.models import pretrained
from engine.train.models.export import export
from engine.train.models.sample import TextGenerator
from profiles.errors import UserError
from profiles.registry import load
from tui.cli.main import main

torch.set_num_threads(1)
SPEC = load("cpu_demo")


def put(out: Path, step: int = 5) -> Path:
    state = {"model": {"w": torch.ones(2)}, "optimizer": {"exp_avg/w": torch.ones(2)}}
    metadata = {"spec": SPEC.to_dict(), "cursor": {}, "versions": {"mla-tui": "0.2.0"}}
    return checkpoint.save(out, step, state, metadata, None)[0]


def rewrite(path: Path, format: int | None, version: str | None) -> Path:
    """Make ``path`` a checkpoint of another format whose checksums match, as its own version would write it."""
    metadata = json.loads((path / "trainer.json").read_text()) | {"format": format}
    metadata["versions"] = {"mla-tui": version} if version else {}
    manifest = json.loads((path / "manifest.json").read_text()) | {"format": format}
    if format is None:
        del metadata["format"], manifest["format"]
    content = json.dumps(metadata).encode()
    (path / "trainer.json").write_bytes(content)
    manifest["files"]["trainer.json"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (path / "manifest.json").write_text(json.dumps(manifest))
    return path


def unread(path: Path, version: str) -> str:
    return (
        f"{path}: written by mla-tui {version}, whose checkpoints this version does not read;"
        f" export it with {version} (mla-tui export) and use --init-from"
    )


def test_every_save_writes_the_format(tmp_path: Path) -> None:
    path = put(tmp_path)
    formats = [json.loads((path / name).read_text())["format"] for name in ("trainer.json", "manifest.json")]
    assert formats == [checkpoint.FORMAT, checkpoint.FORMAT] == [2, 2]


OPENED: dict[str, Callable[[Path], Any]] = {
    "load": checkpoint.load,
    "metadata": checkpoint.metadata,
    "verify": checkpoint.verify,
    "find": lambda path: checkpoint.find(str(path)),
    "find its folder": lambda path: checkpoint.find(str(path.parent)),
    "restart": lambda path: checkpoint.newest_intact(path.parent, pytest.fail),
    "init-from": pretrained.read_config,
    "export": lambda path: export(path, path.parent / "exported"),
    "sample": TextGenerator,
}


@pytest.mark.parametrize("opened", OPENED)
@pytest.mark.parametrize(("format", "version", "named"), [(1, "0.1.0", "0.1.0"), (1, None, "0.1"), (None, None, "0.1")])
def test_a_checkpoint_of_0_1_is_refused_wherever_it_is_opened(
    tmp_path: Path, opened: str, format: int | None, version: str | None, named: str
) -> None:
    path = rewrite(put(tmp_path), format, version)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(UserError) as caught:
        OPENED[opened](path)
    assert str(caught.value) == unread(path, named)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_a_checkpoint_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    path = rewrite(put(tmp_path), 3, "9.0")
    with pytest.raises(UserError) as caught:
        checkpoint.load(path)
    expected = f"{path}: written by mla-tui 9.0 in format 3, this version reads format 2; update mla-tui"
    assert str(caught.value) == expected


def test_a_restart_does_not_go_back_past_a_checkpoint_of_another_version(tmp_path: Path) -> None:
    """It is not damaged: going back to an earlier one would lose its steps."""
    put(tmp_path, 5)
    path = rewrite(put(tmp_path, 10), 3, "9.0")
    with pytest.raises(UserError, match=r"written by mla-tui 9\.0 in format 3"):
        checkpoint.newest_intact(tmp_path, pytest.fail)
    assert path.is_dir()


@pytest.mark.parametrize("name", ["trainer.json", "manifest.json"])
@pytest.mark.parametrize("format", [1, 3, "2", None])
def test_one_file_of_another_format_is_damage(tmp_path: Path, name: str, format: object) -> None:
    path = put(tmp_path)
    content = json.loads((path / name).read_text())
    (path / name).write_text(json.dumps({**content, "format": format}))
    with pytest.raises(UserError, match=rf"ckpt_step_5/{name}: is not what was saved; take an earlier checkpoint"):
        checkpoint.metadata(path)


def test_a_checkpoint_that_is_deleted_during_a_listing_hides_no_other(tmp_path: Path) -> None:
    """A run that saves often deletes the old ones all the time."""
    spec = load("cpu_demo", [f"train.out={tmp_path / 'models'}"])
    run = RunStore(tmp_path / "home").create(spec, Launch(name="run"), RunStatus(phase="stopped"))
    out = tmp_path / "models" / run.name
    for step in range(300):
        (out / f"ckpt_step_{step}").mkdir(parents=True)
    deleter = threading.Thread(target=retention.apply_retention, args=(out, 1, None))
    deleter.start()
    while deleter.is_alive():
        assert inventory(run)[0].step == 299


def test_a_listing_shows_it_as_such(tmp_path: Path) -> None:
    spec = load("cpu_demo", [f"train.out={tmp_path / 'models'}"])
    run = RunStore(tmp_path / "home").create(spec, Launch(name="run"), RunStatus(phase="stopped"))
    rewrite(put(tmp_path / "models" / run.name), 1, "0.1.0")
    (listed,) = inventory(run)
    assert listed.damage == "written by mla-tui 0.1.0, whose checkpoints this version does not read"


@pytest.mark.parametrize(
    "command",
    [
        ["launch", "--resume", "{}"],
        ["launch", "-p", "cpu_demo", "--resume", "{}"],
        ["train", "-p", "cpu_demo", "--resume", "{}"],
        ["launch", "-p", "cpu_demo", "--init-from", "{}"],
        ["sample", "{}", "--prompt", "once"],
        ["export", "{}", "exported"],
    ],
)
def test_every_command_says_it_in_one_line(
    tmp_path: Path, command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLA_TUI_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    path = rewrite(put(tmp_path / "models"), 1, "0.1.0")
    assert main([word.format(path) for word in command]) == 1
    assert capsys.readouterr() == ("", f"mla-tui: {unread(path, '0.1.0')}\n")
    assert not (tmp_path / "home" / "runs").exists() and not (tmp_path / "exported").exists()
