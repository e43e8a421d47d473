"""Tests steps with a NaN loss: the run stops, or rewinds to a checkpoint and skips the data of that step.

The initial weights are NaN for one token, which occurs once in the shards. Only the step that reads it has a NaN loss.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from data.cursor import Cursor
from data.splits import open_split
from engine.checkpoints import checkpoint
from profiles.registry import load
from tests.e2e.conftest import Run, Workspace
from tests.e2e.replay import replayed_losses

BAD = 255
STEPS = 40


@pytest.fixture
def poisoned(workspace: Workspace, reference: Run) -> tuple[Path, int]:
    """Return a checkpoint for ``--init-from`` and the step that reads the token."""
    path = workspace.data / "phase1" / "train" / "phase1-train-000.bin"
    tokens = np.fromfile(path, "<u2") % 250
    tokens[:2_000] = np.arange(2_000) % 250
    path.write_bytes(tokens.astype("<u2").tobytes())
    val = workspace.data / "phase1" / "val" / "phase1-val-000.bin"
    (np.fromfile(val, "<u2") % 250).astype("<u2").tofile(val)
    spec = load(str(workspace.profile))
    data = open_split(spec, "train")
    cursor, sequences = data.initial_cursor(), []
    for _ in range(STEPS):
        batch, cursor = data.read_batch(cursor, spec.batch.sequences)
        sequences.append(batch)
    # Replace one token in the middle of a sequence of step 26; its offset in the shard is found by its content.
    row = sequences[25][3]
    offsets = [i for i in range(len(tokens) - len(row)) if (tokens[i : i + len(row)] == row).all()]
    tokens[offsets[0] + 10] = BAD
    path.write_bytes(tokens.astype("<u2").tobytes())
    data = open_split(spec, "train")
    cursor, bad_steps = data.initial_cursor(), []
    for step in range(1, STEPS + 1):
        batch, cursor = data.read_batch(cursor, spec.batch.sequences)
        if (batch[:, :-1] == BAD).any():
            bad_steps.append(step)
    assert len(bad_steps) == 1

    return with_nan(reference, workspace.root, slice(BAD, BAD + 1)), bad_steps[0]


def with_nan(reference: Run, folder: Path, tokens: slice) -> Path:
    """Save a checkpoint whose embeddings of ``tokens`` are NaN."""
    state, facts = checkpoint.load(reference.workspace.out / "run" / "ckpt_step_200")
    state["model"]["model.embed_tokens.weight"][tokens] = float("nan")
    return checkpoint.save(folder / "poisoned", 200, state, facts, None)[0]


def options(path: Path, steps: int = STEPS) -> tuple[str, ...]:
    settings = ("-s", f"steps={steps}", "-s", "save_every=8", "-s", "keep=9", "-s", "on_nan=rewind")
    return ("--init-from", str(path), *settings)


def test_a_rewound_run_skips_the_bad_sequences(workspace: Workspace, poisoned: tuple[Path, int]) -> None:
    path, bad = poisoned
    rewound_to = (bad - 1) // 8 * 8
    run = workspace.launch(*options(path))
    status = run.wait_end()
    assert status["attempt"] == 2
    (alert,) = run.kind("alert")
    assert alert["what"] == "nan" and f"step {bad}: loss nan" in alert["text"]
    (rewind,) = run.kind("rewind")
    assert rewind["step"] == rewound_to
    exited = run.kind("exit")[0]
    assert exited["code"] == 75 and f"goes back to step {rewound_to} and skips" in exited["why"]
    assert [start["resumed_from"] for start in run.kind("start")] == [None, rewound_to]
    losses = run.losses()
    assert sorted(losses) == list(range(1, STEPS + 1)) and None not in losses.values()
    assert status["step"] == STEPS

    # The same by hand: resume from that checkpoint with its cursor set past the bad step.
    state, facts = checkpoint.load(workspace.out / "run" / f"ckpt_step_{rewound_to}")
    data, cursor = open_split(run.run_dir.spec(), "train"), Cursor.from_dict(facts["cursor"])
    for _ in range(rewound_to, bad):
        _, cursor = data.read_batch(cursor, 8)
    assert rewind["cursor"] == cursor.to_dict()
    moved, _ = checkpoint.save(workspace.root / "moved", rewound_to, state, {**facts, "cursor": cursor.to_dict()}, None)
    again = replayed_losses(run.run_dir.spec(), workspace.root / "by-hand", resume=moved)
    assert again == {step: loss for step, loss in losses.items() if step > rewound_to}


@pytest.mark.faults
def test_a_restart_from_an_older_checkpoint_skips_the_same_sequences(
    workspace: Workspace, poisoned: tuple[Path, int]
) -> None:
    path, bad = poisoned
    rewound_to = (bad - 1) // 8 * 8
    second = workspace.launch(*options(path, steps=2000), name="second")
    second.wait_step(rewound_to + 1, attempt=2)
    second.kill("trainer")
    for step in checkpoint.steps(workspace.out / "second"):
        if step >= rewound_to:
            model = workspace.out / "second" / f"ckpt_step_{step}" / "model.safetensors"
            model.write_bytes(model.read_bytes()[:-8])
    second.wait_step(STEPS, attempt=3)
    workspace.run("stop", second.id)
    second.wait_end("stopped")
    assert second.kind("start")[2]["resumed_from"] == rewound_to - 8
    assert len(second.kind("rewind")) == 1
    assert None not in second.losses().values()


def test_nan_weights_end_the_run_with_the_reason(workspace: Workspace, reference: Run) -> None:
    path = with_nan(reference, workspace.root, slice(None))
    run = workspace.launch("--init-from", path, "-s", "on_nan=rewind")
    status = run.wait_end("failed")
    assert status["attempt"] == 1
    assert "step 1: loss nan" in status["reason"]
    assert "there is no checkpoint yet" in status["reason"]
    assert run.kind("rewind") == []


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_a_loss_that_stays_nan_ends_the_run_after_five_restarts_without_progress(workspace: Workspace) -> None:
    workspace.train("-s", "steps=1", "-s", "val_every=0", name="first")
    state, facts = checkpoint.load(workspace.out / "first" / "ckpt_step_1")
    state["model"]["model.embed_tokens.weight"][:] = float("nan")
    path, _ = checkpoint.save(workspace.root / "poisoned", 1, state, facts, None)
    done = workspace.run("launch", "--resume", path, "--name", "run", "-s", "steps=100", "-s", "on_nan=rewind")
    run = workspace.find(done.stdout.strip())
    status = run.wait_end("failed")
    assert status["attempt"] == 6
    assert "gave up after 5 restarts without progress" in status["reason"]
    assert "step 2: loss nan" in status["reason"]
    skipped = [json.dumps(rewind["cursor"]) for rewind in run.kind("rewind")]
    assert len(skipped) == len(set(skipped)) == 6  # each rewind skips more data
