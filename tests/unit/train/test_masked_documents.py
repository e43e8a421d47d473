"""Runs with masked documents: the loss is the mean over the tokens that count, however a step is split and computed."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.train.backends.build import build_backend
from engine.train.backends.ranks import SingleRank
from engine.train.loop import Trainer
from engine.train.resume_summary import resume_summary
from engine.train.run_state import RunState
from profiles.errors import UserError
from profiles.registry import with_overrides
from profiles.spec import RunSpec
from tests.unit.train.tiny_runs import MakeSpec, RecordingReporter
from tui.cli.main import main

END = 3


@pytest.fixture
def masked(nano: MakeSpec, tmp_path: Path) -> Callable[..., RunSpec]:
    """Return a function from settings to a spec whose data has documents of 1 to 60 tokens."""
    spec = nano()
    folder = tmp_path / "shards" / "phase1"
    (folder / "dataset.json").write_text(json.dumps({"eot_id": END}))
    for path in folder.rglob("*.bin"):
        ids = np.fromfile(path, "<u2")
        ids[ids == END] = END + 1
        places = np.cumsum(np.random.default_rng(2).integers(1, 60, len(ids) // 20))
        ids[places[places < len(ids)]] = END
        ids.tofile(path)
    return lambda *more: with_overrides(spec, ["documents=mask", *more])


def train(spec: RunSpec, out: Path, resume: Path | None = None) -> RecordingReporter:
    state, log = RunState(spec), RecordingReporter()
    backend = build_backend(spec, SingleRank(), state.document_end)
    Trainer(state, backend, log, out, run="run").run(resume, None)
    return log


def numbers(log: RecordingReporter) -> list[float]:
    return [r["loss"] for r in (*log.of("step"), *log.of("val"))] + [r["grad_norm"] for r in log.of("step")]


BACKENDS = [
    *(("micro=8", "workers=0"), ("micro=1", "attention=blocked"), ("micro=2", "loss=fused")),
    *([("backend=mlx", "micro=2", "loss=fused")] if importlib.util.find_spec("mlx") else []),
]


@pytest.mark.parametrize("how", BACKENDS, ids=lambda how: how[0])
def test_the_losses_do_not_depend_on_how_a_step_is_computed(
    masked: Callable[..., RunSpec], tmp_path: Path, how: tuple[str, ...]
) -> None:
    settings = ("steps=5", "val_every=5", "save_every=0")
    expected = train(masked(*settings), tmp_path / "one")
    found = train(masked(*settings, *how), tmp_path / "other")
    assert numbers(found) == pytest.approx(numbers(expected), rel=1e-3 if "mlx" in how[0] else 1e-4)
    joined = train(masked(*settings, "documents=join"), tmp_path / "joined")
    assert abs(numbers(joined)[0] - numbers(expected)[0]) > 1e-4
    ends = sum(int((batch[:, :-1] == END).sum()) for batch in RunState(masked()).val_batches[""])
    assert ends and joined.of("val")[0]["tokens"] - expected.of("val")[0]["tokens"] == ends


def test_a_step_without_predictions_changes_only_what_decays(masked: Callable[..., RunSpec], tmp_path: Path) -> None:
    spec = masked("steps=2", "val_every=0", "save_every=0")
    for path in (tmp_path / "shards").rglob("*.bin"):
        np.full(20_000, END, "<u2").tofile(path)
    log = train(spec, tmp_path / "out")
    assert [(r["loss"], r["grad_norm"]) for r in log.of("step")] == [(0.0, 0.0)] * 2


def test_a_run_may_resume_with_masked_documents(masked: Callable[..., RunSpec], tmp_path: Path) -> None:
    train(masked("steps=4", "val_every=0", "documents=join"), tmp_path / "out")
    last, after = tmp_path / "out" / "ckpt_step_4", masked("steps=6", "val_every=0", "workers=0")
    line = resume_summary(last, after)
    assert "data.documents join → mask" in line and "workers" not in line
    assert list(train(after, tmp_path / "more", last).losses()) == [5, 6]


@pytest.mark.parametrize(
    ("dataset", "error"),
    [
        (None, "which is missing"),
        ({"vocab_size": 256}, "which lacks it"),
        ({"eot_id": 256}, "eot_id 256 is outside the model's vocabulary of 256"),
        ({"eot_id": "end"}, "eot_id"),
    ],
    ids=["no dataset.json", "no id", "too large", "text"],
)
def test_an_unknown_end_is_refused_in_one_line(
    masked: Callable[..., RunSpec],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    dataset: dict[str, Any] | None,
    error: str,
) -> None:
    spec, path = masked(), tmp_path / "shards" / "phase1" / "dataset.json"
    path.unlink()
    if dataset is not None:
        path.write_text(json.dumps(dataset))
    sets = [f"model.{name}={value}" for name, value in vars_of(spec).items()]
    options = [f"root={tmp_path / 'shards'}", "documents=mask", "context=32", *sets]
    assert main(["train", "-p", "cpu_demo", *(word for option in options for word in ("-s", option))]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert error in line


def test_sources_end_documents_with_one_id(masked: Callable[..., RunSpec], tmp_path: Path) -> None:
    other = tmp_path / "shards" / "code"
    shutil.copytree(tmp_path / "shards" / "phase1", other)
    mixed = masked("data.sources={phase1 = 0.5, code = 0.5}", "steps=2", "val_every=0", "save_every=0")
    assert len(train(mixed, tmp_path / "out").losses()) == 2
    (other / "dataset.json").write_text(json.dumps({"eot_id": 5}))
    with pytest.raises(UserError, match=r"one eot_id: code 5, phase1 3"):
        RunState(mixed)


def vars_of(spec: RunSpec) -> dict[str, Any]:
    config = spec.model.config
    return {name: getattr(config, name) for name in ("vocab_size", "hidden_size", "num_hidden_layers")}


def test_a_backend_needs_to_know_the_end(masked: Callable[..., RunSpec]) -> None:
    with pytest.raises(ValueError, match=r"data\.documents"):
        build_backend(masked(), SingleRank())
