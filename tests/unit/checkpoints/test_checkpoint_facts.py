"""A checkpoint whose checksums match, but whose manifest or facts are not those of a checkpoint: one line each."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from data.cursor import Cursor
from engine.checkpoints import checkpoint, retention
from engine.train.models.export import export
from engine.train.models.sample import TextGenerator
from profiles.errors import UserError
from profiles.registry import load
from tests.unit.checkpoints.facts import Edit, edit_facts, edit_manifest
from tui.cli.main import main

SPEC = load("cpu_demo")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    state = {"model": {"w": torch.ones(2)}, "optimizer": {"step": torch.ones(1)}}
    facts = {"spec": SPEC.to_dict(), "cursor": Cursor(1, 256).to_dict(), "val_loss": 2.5, "best": [2.5, 5]}
    return checkpoint.save(tmp_path / "run", 5, state, {**facts, "versions": {"mla-tui": "0.2.0"}}, None)[0]


def refusal(read: Callable[[Path], Any], path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read(path)
    text = str(caught.value)
    assert text.isprintable() and len(text) < 500 and str(path) in text
    return text


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda files: files.clear(), "files: model.safetensors: is missing"),
        (lambda files: files.pop("optimizer.safetensors"), "files: optimizer.safetensors: is missing"),
        (lambda files: files.pop("trainer.json"), "files: trainer.json: is missing"),
        (lambda files: files.update({"../run/latest": {"bytes": 13, "sha256": ""}}), "is not a file of the checkpoint"),
        (lambda files: files.update({"": {"bytes": 4096, "sha256": ""}}), "is not what was saved"),
        (lambda files: files.update({"..": {"bytes": 4096, "sha256": ""}}), "is not what was saved"),
        (lambda files: files.update({"a\n\x1b": {"bytes": 1, "sha256": ""}}), "is not what was saved"),
        (lambda files: files.update({"model.safetensors": 7}), "model.safetensors: 7 is not a table"),
        (lambda files: files["model.safetensors"].update(bytes=True), "bytes: True is not an integer from 0 up"),
        (lambda files: files["model.safetensors"].update(sha256=None), "sha256: None is not text"),
    ],
)
def test_a_manifest_must_list_the_files_of_a_checkpoint(path: Path, edit: Edit, message: str) -> None:
    checkpoint.verify(path)
    edit_manifest(path, edit)
    for read in (checkpoint.verify, checkpoint.load):
        text = refusal(read, path)
        assert message in text
        assert text.endswith("take an earlier checkpoint")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda facts: facts.update(step=-1), "trainer.json: step: -1 is not an integer from 0 up"),
        (lambda facts: facts.update(step=1e308), "step: 1e+308 is not an integer"),
        (lambda facts: facts.update(step=[]), "step: [] is not an integer"),
        (lambda facts: facts.pop("step"), "step: is missing"),
        (lambda facts: facts.update(val_loss="low"), "val_loss: 'low' is not a number"),
        (lambda facts: facts.update(best=["a", "b"]), "best: ['a', 'b'] is not a value and its step"),
        (lambda facts: facts.update(best=[1.5]), "best: [1.5] is not a value and its step"),
        (lambda facts: facts.update(best={"a": 1}), "best: {'a': 1} is not a value and its step"),
    ],
)
def test_a_fact_of_the_wrong_type_is_named(path: Path, edit: Edit, message: str) -> None:
    edit_facts(path, edit)
    for read in (
        checkpoint.metadata,
        checkpoint.verify,
        checkpoint.load,
        lambda path: checkpoint.find(str(path)),
    ):
        assert message in refusal(read, path)
    assert retention.best_step(path) is None


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda facts: facts.update(spec=["x"]), "trainer.json: spec: ['x'] is not a table"),
        (lambda facts: facts.pop("spec"), "trainer.json: spec: None is not a table"),
        (lambda facts: facts["spec"].update(profile="x\necho INJECTED\n#"), "profile 'x\\necho INJECTED\\n#': use a"),
        (lambda facts: facts["spec"].update(description=7), "description: 7 is not text"),
        (lambda facts: facts["spec"]["batch"].update(micro=[]), "batch.micro: [] is not a number"),
        (lambda facts: facts["spec"]["launch"].update(hosts="a\nb"), "launch.hosts: 'a\\nb' has a control"),
        (lambda facts: facts["spec"].update({"x\n\x1b[2J": 1}), "x \\x1b[2J: unknown key"),
    ],
)
def test_a_spec_that_cannot_be_one_is_refused(
    path: Path, edit: Edit, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    edit_facts(path, edit)
    assert message in refusal(checkpoint.spec_of, path)
    assert main(["launch", "--resume", str(path), "-s", "launch.launcher=slurm", "--dry-run"]) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1) and message in err


def test_a_model_of_another_shape_is_refused(path: Path, tmp_path: Path) -> None:
    message = "model.embed_tokens.weight is missing; take a whole copy"
    assert message in refusal(lambda path: export(path, tmp_path / "exported"), path)
    assert message in refusal(TextGenerator, path)


def test_only_a_regular_file_is_a_part_of_a_checkpoint(path: Path) -> None:
    for name in ("trainer.json", "manifest.json", "optimizer.safetensors"):
        content = (path / name).read_bytes()
        (path / name).unlink()
        os.mkfifo(path / name)
        assert name in refusal(checkpoint.load, path)
        (path / name).unlink()
        (path / name).write_bytes(content)
    (path.parent / "latest").unlink()
    os.mkfifo(path.parent / "latest")
    assert checkpoint.latest(path.parent) == path
    (path.parent / f"ckpt_step_{'9' * 200}").mkdir()
    assert checkpoint.steps(path.parent) == [5]


def test_a_loss_that_is_not_finite_leaves_a_checkpoint_that_can_be_read(tmp_path: Path) -> None:
    state: dict[str, dict[str, Any]] = {"model": {}, "optimizer": {}}
    facts = {"val_loss": float("nan"), "best": None, "spec": SPEC.to_dict()}
    path, _ = checkpoint.save(tmp_path, 5, state, facts, None)
    assert checkpoint.metadata(path)["val_loss"] is None
    checkpoint.load(path)


def test_a_spec_of_another_digit_is_no_spec(path: Path) -> None:
    facts = path / "trainer.json"
    facts.write_text(facts.read_text().replace('"lr": 0.003', '"lr": 0.103'))
    assert refusal(checkpoint.spec_of, path) == f"{facts}: is not what was saved; take an earlier checkpoint"
