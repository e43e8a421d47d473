"""Tests ``mla-tui export``, and training on from an export at a longer context."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from engine.checkpoints import checkpoint
from model.transformer import build
from profiles.spec import RunSpec
from tests.e2e.conftest import VOCABULARY, MakeWorkspace, Workspace
from tui.cli.main import main

SHORT = ("-s", "context=64", "-s", "steps=120", "-s", "val_every=120")
LONG = (
    *("-s", "context=256", "-s", "model.yarn_factor=4", "-s", "model.yarn_original_context=64"),
    *("-s", "sequences=4", "-s", "steps=20", "-s", "val_every=20"),
)


@pytest.fixture(scope="module")
def short(make_workspace: MakeWorkspace) -> Workspace:
    """A workspace with a finished run at a context of 64."""
    workspace = make_workspace()
    workspace.train(*SHORT, name="short")
    return workspace


def logits_of(path: Path, ids: torch.Tensor) -> torch.Tensor:
    """Return the logits of our own model with the weights of a checkpoint."""
    state, facts = checkpoint.load(path, ("model",))
    model = build(RunSpec.from_dict(facts["spec"]).model.config, 0)
    model.load_state_dict(state["model"], strict=False)
    with torch.no_grad():
        logits: torch.Tensor = model(ids)
        return logits


def export(checkpoint_path: Path, folder: Path) -> None:
    """Run the command in this process, which has imported torch already."""
    assert main(["export", str(checkpoint_path), str(folder), "--format", "hf"]) == 0


def test_export_prints_directory_step_and_dtype(short: Workspace) -> None:
    done = short.run("export", short.out / "short", short.root / "hf", "--format", "hf")
    assert done.stdout == f"{short.root / 'hf'}\n"
    assert "step 120, float32" in done.stderr
    assert "has no tokenizer.json" in done.stderr
    assert json.loads((short.root / "hf" / "config.json").read_text())["max_position_embeddings"] == 64
    card = (short.root / "hf" / "README.md").read_text()
    assert "pre-trained for 120 steps" in card and "| steps | 120 of 120 |" in card


def test_a_stage_with_longer_context_starts_from_the_exported_weights(short: Workspace) -> None:
    """Checkpoint → Hugging Face → a run at four times the context with YaRN → Hugging Face again."""
    folder = short.root / "between"
    export(short.out / "short" / "ckpt_step_120", folder)
    started = short.run("launch", "-p", "nano", "--name", "long", "--init-from", folder, *LONG)
    run = short.find(started.stdout.strip())
    run.wait_end()
    last_val = checkpoint.metadata(short.out / "short" / "ckpt_step_120")["val_loss"]
    vals = [val["loss"] for val in run.kind("val")]
    assert vals[0] < 1.1 * last_val < math.log(VOCABULARY) / 2  # without training it is that logarithm
    assert run.kind("start")[0]["resumed_from"] is None
    assert run.kind("step")[0]["context"] == 256

    out = short.root / "stretched"
    export(short.out / "long", out)
    loaded: Any = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    theirs, report = loaded
    assert not any(report.values())
    assert theirs.config.rope_parameters["factor"] == 4.0
    ids = torch.randint(0, 256, (1, 256), generator=torch.Generator().manual_seed(0))
    expected = logits_of(short.out / "long" / "ckpt_step_20", ids)
    with torch.no_grad():
        assert (theirs(ids).logits - expected).abs().max().item() <= 1e-5 * expected.abs().max().item()


@pytest.mark.parametrize("command", ["launch", "train"])
def test_weights_that_do_not_fit_are_refused_before_anything_is_created(short: Workspace, command: str) -> None:
    folder = short.root / "misfit"
    if not folder.exists():
        export(short.out / "short", folder)
    short.assert_refused(
        *(command, "-p", "nano", "--name", "other", "--init-from", folder, "-s", "model.vocab_size=300"),
        code=1,
        message="vocab_size: 256 there, 300 in model test-nano; use -s model.vocab_size=256",
    )
    short.assert_refused(
        *(command, "-p", "nano", "--name", "other", "--init-from", short.out / "short", "-s", "model.hidden_size=64"),
        code=1,
        message="hidden_size: 32 there, 64 in model test-nano",
    )


@pytest.mark.parametrize(
    ("args", "message", "code"),
    [
        (("nowhere", "hf9"), "nowhere", 1),
        (("models/short", "models"), "models: is not empty", 1),
        (("models/short", "models/short/latest"), "is a file", 1),
        (("shards", "hf9"), "is not a checkpoint", 1),
    ],
)
def test_an_impossible_export_is_refused_in_one_line(
    short: Workspace, args: tuple[object, ...], message: str, code: int
) -> None:
    short.assert_refused("export", *args, code=code, message=message)


def test_an_unknown_format_is_a_usage_error(short: Workspace) -> None:
    assert "invalid choice" in short.run("export", "models/short", "hf9", "--format", "onnx", code=2).stderr
    assert not (short.root / "hf9").exists()


def test_a_full_disk_is_reported(short: Workspace) -> None:
    disk = short.root / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here: that takes root and the right to mount")
    try:
        short.assert_refused("export", short.out / "short", disk / "hf", code=1, message="MB free; free some space")
    finally:
        subprocess.run(["umount", str(disk)], check=True)
        shutil.rmtree(disk)
