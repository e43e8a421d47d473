"""``mla-tui eval`` scores questions and texts as lm-evaluation-harness does, and refuses bad files in one line.

What the harness says of the export of the same model is in ``harness_expected.json``, written by
``python -m tests.bench.harness --record`` (lm_eval 0.4.13, torch 2.13.0, on a CPU).
"""

from __future__ import annotations

import json
import math
import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from data.pack.training import train_tokenizer
from engine.checkpoints import checkpoint
from engine.checkpoints.evals import read_results, weights_id
from engine.train.evaluation.benchmark import text_benchmark
from engine.train.evaluation.loaded import load_model
from engine.train.evaluation.scoring import Request, score, score_batch
from engine.train.models.export import export
from profiles.errors import UserError
from tests.bench.harness import EXPECTED, measure_here
from tests.unit.train.evaluation_files import CONFIG, CONTEXT, write_model, write_tasks, zen
from tui.cli.main import main
from tui.cli.progress_line import ProgressLine


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return write_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_tasks(tmp_path_factory.mktemp("tasks"))


def test_every_log_likelihood_and_metric_is_that_of_the_harness(tmp_path: Path) -> None:
    expected = json.loads(EXPECTED.read_text())
    for name, (metrics, likely) in measure_here(tmp_path).items():
        assert likely == pytest.approx(expected[name]["log_likelihoods"], rel=1e-5)
        for metric, value in expected[name]["metrics"].items():
            assert metrics[metric] == pytest.approx(value, rel=1e-4), (name, metric)


def test_a_batch_with_padding_gives_the_answers_of_single_requests(model: Path) -> None:
    loaded = load_model(model)
    rng = np.random.default_rng(1)
    requests = [
        Request(rng.integers(0, CONFIG.vocab_size, length), scored) for length, scored in ((9, 3), (33, 32), (2, 1))
    ]
    together, alone = score_batch(loaded.model, requests), [score_batch(loaded.model, [one])[0] for one in requests]
    assert [a.log_probability for a in together] == pytest.approx([a.log_probability for a in alone], rel=1e-5)
    with torch.inference_mode():
        first = requests[0].ids
        next_id = int(loaded.model(torch.from_numpy(first[None, :-1]))[0, -1].argmax())
    right, wrong = ([*first[:-1], id] for id in (next_id, (next_id + 1) % CONFIG.vocab_size))
    answers = score(loaded.model, [Request(np.array(ids), 1) for ids in (right, wrong)])
    assert [answer.greedy for answer in answers] == [True, False]


def test_the_text_of_a_special_token_is_text(model: Path, tmp_path: Path) -> None:
    """As in packed data, whose documents have that id only at their end; and no setting of the tokenizer cuts it."""
    loaded = load_model(model)
    assert loaded.prefix == loaded.tokenizer.token_to_id("<|endoftext|>")
    loaded.tokenizer.enable_truncation(CONTEXT)
    text = tmp_path / "text.txt"
    text.write_text("<|endoftext|>".join(zen()))
    assert "<|endoftext|>" in text.read_text()
    ids = [id for one in text_benchmark(loaded, text, None).requests for id in one.ids[-one.scored :].tolist()]
    assert loaded.prefix not in ids and loaded.tokenizer.decode(ids) == text.read_text()


def test_results_are_kept_beside_the_checkpoint_shown_and_exported(
    tmp_path: Path, files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_model(tmp_path / "demo")
    phase = tmp_path / "phase1"
    (phase / "val").mkdir(parents=True)
    np.arange(4 * CONTEXT + 9, dtype="<u2").clip(0, 250).tofile(phase / "val" / "val-000.bin")
    inputs = [f"--text={files['text']}", "--tasks", str(files["arc"]), str(files["lambada"]), "--data", str(phase)]
    assert main(["eval", str(path.parent), *inputs, "--json"]) == 0
    answer = capsys.readouterr()
    printed = {one["format"]: one for one in json.loads(answer.out)}
    assert printed.keys() == {"text", "split", "arc", "lambada"}
    assert printed["split"]["examples"] == 4 and math.isfinite(printed["split"]["metrics"]["loss"])
    assert f"kept in {path}/evals.json" in answer.err
    checkpoint.verify(path)  # the results are no part of what the manifest lists
    before = read_results(path)
    assert main(["eval", str(path), "--tasks", str(files["arc"]), "--limit", "3"]) == 0
    assert read_results(path) == before  # a part of the questions is not kept
    kept = json.loads((path / "evals.json").read_text())
    (path / "evals.json").write_text(json.dumps(kept).replace('"examples": 1', '"examples": 7', 1))
    with pytest.raises(UserError, match=r"evals\.json: is not what was saved; remove it and evaluate again"):
        read_results(path)
    (path / "evals.json").write_text(json.dumps({"results": kept["results"]}))  # as earlier versions wrote it
    assert read_results(path) == before
    capsys.readouterr()
    hf = export(path, tmp_path / "hf").path
    assert read_results(hf) == [replace(one, weights=weights_id(hf)) for one in before]
    assert main(["eval", str(hf), "--text", str(files["text"])]) == 0
    results = {one.format: one for one in read_results(hf)}
    assert results["text"].metrics == pytest.approx(before[0].metrics, rel=1e-6) and len(results) == len(before)
    capsys.readouterr()
    assert main(["eval", str(path), "--show"]) == 0
    shown = capsys.readouterr().out
    assert "arc.jsonl" in shown and "acc_norm" in shown and "bits/byte" in shown
    other = tmp_path / "arc.jsonl"  # of the same name as another, in another folder
    other.write_text("".join(files["arc"].read_text().splitlines(keepends=True)[:3]))
    assert main(["eval", str(path), "--tasks", str(other)]) == 0
    assert main(["eval", str(path), "--tasks", str(files["arc"])]) == 0  # takes the place of its own earlier one alone
    both = [one for one in read_results(path) if one.format == "arc"]
    assert [one.examples for one in both] == [3, before[2].examples] and len(read_results(path)) == len(before) + 1
    capsys.readouterr()
    assert main(["eval", str(path), "--show"]) == 0
    shown = capsys.readouterr().out
    assert all(f"arc.jsonl ({one.digest[:6]})" in shown for one in both)


def test_ctrl_c_keeps_what_is_done(
    tmp_path: Path, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_model(tmp_path)
    calls = iter([False])

    def due(self: ProgressLine) -> bool:
        try:
            return next(calls)
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(ProgressLine, "due", due)
    assert main(["eval", str(path), "--text", str(files["text"]), "--tasks", str(files["piqa"])]) == 130
    assert "stopped; 1 of 2 measured" in capsys.readouterr().err
    assert [one.format for one in read_results(path)] == ["text"]
    assert not [file for file in path.iterdir() if file.name.startswith(".")]


def test_results_count_for_the_weights_that_they_judge(
    tmp_path: Path, files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Copied by hand into the folder of another checkpoint they are not its results."""
    one, other = write_model(tmp_path / "one"), write_model(tmp_path / "an $(other)", seed=1)
    assert main(["eval", str(one), "--tasks", str(files["arc"])]) == 0
    shutil.copy(one / "evals.json", other)
    assert len(read_results(one)) == 1 and read_results(other) == []
    assert main(["eval", str(other), "--show"]) == 0
    assert f"measure with: mla-tui eval '{other}' --text FILE" in capsys.readouterr().err
    assert main(["eval", str(other), "--tasks", str(files["piqa"])]) == 0
    capsys.readouterr()
    assert main(["eval", str(other), "--show"]) == 0
    out, err = capsys.readouterr()
    assert "piqa" in out and "arc" not in out.replace(str(tmp_path), "")
    assert (
        err
        == f"mla-tui: {other}/evals.json: has 1 result of other weights, not shown; remove it if it was copied there\n"
    )
    hf, foreign = (export(path, tmp_path / f"hf-{path.parent.name}").path for path in (other, one))
    assert len(read_results(hf)) == 1
    shutil.copy(hf / "evals.json", foreign)
    assert weights_id(hf) != weights_id(foreign) and read_results(foreign) == []


@pytest.mark.parametrize("command", ["eval", "sample", "export"])
def test_a_checkpoint_that_its_run_deletes_while_it_is_read_is_said_to_be_removed(
    tmp_path: Path,
    files: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    path, newest = write_model(tmp_path), tmp_path / "ckpt_step_9"
    words = {"eval": ["--text", str(files["text"])], "sample": ["--prompt", "a"], "export": [str(tmp_path / "hf")]}
    shutil.copytree(path, newest)
    verify = checkpoint.verify

    def deleted_first(path: Path) -> None:
        shutil.rmtree(path)
        verify(path)

    monkeypatch.setattr(checkpoint, "verify", deleted_first)
    given = [command, str(path), *words[command]]
    monkeypatch.setattr("sys.argv", ["mla-tui", *given])
    assert main(given) == 1
    again = shlex.join(["mla-tui", command, str(newest), *words[command]])
    said = f"mla-tui: {path}: was removed while it was read; a run keeps its newest checkpoints, take that: {again}\n"
    assert capsys.readouterr().err == said
    assert not (tmp_path / "hf").exists()


def test_what_was_measured_is_printed_where_the_checkpoint_is_gone(
    tmp_path: Path, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_model(tmp_path)
    monkeypatch.setattr(ProgressLine, "due", lambda self: shutil.rmtree(path, ignore_errors=True))
    assert main(["eval", str(path), "--text", str(files["text"])]) == 1
    out, err = capsys.readouterr()
    assert "bits/byte" in out
    assert err == f"mla-tui: the results are not kept: {path}: was removed while it was read\n"


def _arc(**changes: object) -> str:
    row = {"question": "a", "choices": {"text": ["b", "c"], "label": ["A", "B"]}, "answerKey": "A"}
    return json.dumps({**row, **changes})


BAD_TASKS = {
    "wrong field": (_arc(choices=3), "choices: 3 is not a table"),
    "no known format": ('{"a": 1}', "those of no known format: name it with --format"),
    "no JSON": ("hello", "tasks.jsonl:1: is not valid JSON"),
    "a wrong key": (_arc(answerKey="E"), "answerKey: 'E' is not one of the labels"),
    "a label twice": (
        _arc(choices={"text": ["b", "c"], "label": ["A", "A"]}),
        "choices: 2 texts with the labels 'A, A': each needs one of its own",
    ),
    "a choice without label": (_arc(choices={"text": ["b", "c", "d"], "label": ["A", "B"]}), "choices: 3 texts with"),
    "index out of range": (
        '{"goal": "a", "sol1": "b", "sol2": "c", "label": 2}',
        "label: 2 is not a number from 0 to 1",
    ),
    "no label": ('{"goal": "a", "sol1": "b", "sol2": "c"}', "label: is missing"),
    "half a pair": (_arc(question="\ud800"), "is not UTF-8 text"),
    "an empty choice": (_arc(choices={"text": ["", "c"], "label": ["A", "B"]}), "is not a list of texts"),
    "one word": ('{"text": "hello"}', "is not text whose last word follows a space"),
    "a long choice": (json.dumps({"text": f"a {'b#' * 100}"}), f"does not fit into the context of {CONTEXT}"),
    "empty": ("\n", "is empty"),
}


@pytest.mark.parametrize(("content", "says"), BAD_TASKS.values(), ids=BAD_TASKS)
def test_a_bad_task_file_is_one_line(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, says: str
) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text(content)
    _refused(["eval", str(model), "--tasks", str(path)], says, capsys)


def _fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _of_another_tokenizer(phase: Path) -> Path:
    """Make a phase whose tokenizer gives other tokens the same ids, and return its shard."""
    shard = phase / "val" / "val-000.bin"
    shard.parent.mkdir(parents=True)
    np.arange(4 * CONTEXT, dtype="<u2").clip(0, 250).tofile(shard)
    (phase / "tokenizer.json").write_text(train_tokenizer(["quite other words"] * 4, 290))
    return shard


BAD_FILES: dict[str, tuple[str, Callable[[Path], Path], str]] = {
    "a FIFO": ("--text", lambda folder: _fifo(folder / "fifo"), "is a FIFO, not a regular file"),
    "tasks in a FIFO": ("--tasks", lambda folder: _fifo(folder / "fifo"), "is a FIFO, not a regular file"),
    "a missing text": ("--text", lambda folder: folder / "none", "does not exist"),
    "an empty text": ("--text", lambda folder: _written(folder / "text", b""), "is empty"),
    "a short text": ("--text", lambda folder: _written(folder / "text", b"ab ab"), "fewer than the context of 64"),
    "a binary text": ("--text", lambda folder: _written(folder / "text", b"\xff\xfe"), "is not UTF-8 text"),
    "a short shard": ("--shard", lambda folder: _written(folder / "a.bin", bytes(20)), "fewer than a context of 64"),
    "data of another tokenizer": (
        "--data",
        lambda folder: _of_another_tokenizer(folder / "web").parent.parent,
        "web/tokenizer.json: is not the tokenizer of the model",
    ),
    "a shard of another tokenizer": (
        "--shard",
        lambda folder: _of_another_tokenizer(folder / "web"),
        "web/tokenizer.json: is not the tokenizer of the model",
    ),
    "no data set": ("--data", lambda folder: folder / "none", "none is no folder; name that of a data set"),
}


@pytest.mark.parametrize(("option", "make", "says"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_one_line(
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    option: str,
    make: Callable[[Path], Path],
    says: str,
) -> None:
    _refused(["eval", str(model), option, str(make(tmp_path))], says, capsys)


def test_a_model_without_tokenizer_and_a_damaged_result_are_one_line(
    tmp_path: Path, files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_model(tmp_path)
    (path / "evals.json").write_text('{"results": 3}')
    _refused(["eval", str(path), "--text", str(files["text"])], "evals.json: is damaged", capsys)
    (path / "evals.json").unlink()
    hf = export(path, tmp_path / "hf", with_tokenizer=False).path
    _refused(["eval", str(hf), "--text", str(files["text"])], "has no tokenizer.json", capsys)
    _refused(["eval", str(path)], "nothing to measure", capsys, code=2)
    _refused(["eval", str(path), "--text", str(files["text"]), "--limit", "0"], "--limit: 0", capsys, code=2)
    assert read_results(path) == [] and len(zen()) > 10


def _refused(command: list[str], says: str, capsys: pytest.CaptureFixture[str], code: int = 0) -> None:
    status = main(command)
    said = capsys.readouterr()
    assert status == code if code else status in (1, 2)
    assert says in said.err and said.err.count("\n") == 1 and said.out == ""
