"""``status`` and ``compare`` print what was measured on the newest checkpoint of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.checkpoints.evals import EvalResult, add_results
from engine.host.struct_json import write_struct
from engine.runs.store import RunStore
from tests.unit.tui.conftest import Make
from tui.cli.main import main


def evaluated_run(make_run: Make, folder: Path, name: str, *results: EvalResult) -> Path:
    """Make a run whose newest checkpoint has ``results``; return the folder of the checkpoint."""
    path = folder / name / "ckpt_step_3"
    path.mkdir(parents=True)
    add_results(path, list(results))
    run, _ = make_run(name, 3)
    state = run.state()
    state.checkpoint = str(path)
    write_struct(run.state_path, state)
    return path


def result(name: str, accuracy: float, ema: bool = False) -> EvalResult:
    return EvalResult(name=name, format="arc", metrics={"acc": accuracy, "acc_stderr": 0.125}, examples=8, ema=ema)


def test_status_and_compare_show_the_results(
    make_run: Make, store: RunStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = result("arc.jsonl", 0.25), result("arc.jsonl", 0.375, ema=True)
    path = evaluated_run(make_run, tmp_path, "one", *one)
    evaluated_run(make_run, tmp_path, "two", result("arc.jsonl", 0.5), result("\x1b[2Jb.jsonl", 0.0))
    evaluated_run(make_run, tmp_path, "none")

    assert main(["status", "one"]) == 0
    shown = capsys.readouterr().out.splitlines()[-2:]
    assert [" ".join(line.split()) for line in shown] == [
        "evals arc.jsonl arc 8 acc 0.250 ±0.125",
        "arc.jsonl (ema) arc 8 acc 0.375 ±0.125",
    ]
    assert main(["status", "one", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["evals"]
    assert [(one["metrics"]["acc"], one.get("ema", False)) for one in found] == [(0.25, False), (0.375, True)]

    assert main(["compare", "one", "two", "none"]) == 0
    out = capsys.readouterr().out
    table = out.split("evaluations of the newest checkpoints")[1]
    found = [" ".join(line.split()) for line in table.splitlines() if "arc.jsonl" in line]
    assert found == [
        "A arc.jsonl arc 8 acc 0.250 ±0.125",
        "B arc.jsonl arc 8 acc 0.500 ±0.125",
        "A arc.jsonl (ema) arc 8 acc 0.375 ±0.125",
    ]
    assert "\x1b[2J" not in out

    (path / "evals.json").write_text("{")
    assert main(["status", "one"]) == 0 and "evals" not in capsys.readouterr().out
    assert main(["compare", "one", "two"]) == 0 and "A  arc.jsonl" not in capsys.readouterr().out
