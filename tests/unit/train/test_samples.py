"""Text sampled during training, and the work beside training that it is."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from engine.events.requests import StopRequest
from engine.events.types import Command, Event, Log, Sample
from engine.preflight import check_samples
from engine.train.backends.build import build_backend
from engine.train.backends.ranks import SingleRank
from engine.train.loop import Trainer
from engine.train.run_state import RunState
from engine.train.timed_work import Budget
from profiles.errors import SpecError, UserError
from profiles.registry import load
from profiles.spec import RunSpec
from tests.unit.train.test_live_edits import set_at
from tests.unit.train.tiny_runs import MakeSpec, RecordingReporter

SAMPLES = ("sample_every=2", "sample_tokens=40", 'sample_prompts=["ab", ""]')


@pytest.fixture
def tokenizer(nano: MakeSpec, tmp_path: Path) -> Path:
    """Write a tokenizer of bytes beside the shards; return its path."""
    letters = {byte: number for number, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    bytewise = Tokenizer(models.BPE(letters, []))
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytewise.decoder = decoders.ByteLevel()
    path = tmp_path / "shards" / "phase1" / "tokenizer.json"
    bytewise.save(str(path))
    return path


def trainer_of(spec: RunSpec, out: Path, log: RecordingReporter) -> Trainer:
    return Trainer(RunState(spec), build_backend(spec, SingleRank()), log, out, run="run")


def trained(spec: RunSpec, out: Path, **log: Any) -> RecordingReporter:
    reporter = RecordingReporter(**log)
    trainer_of(spec, out, reporter).run(None, None)
    return reporter


def warnings(log: RecordingReporter) -> list[str]:
    return [str(event.text) for event in log.events if isinstance(event, Log) and event.level == "warning"]


@pytest.mark.parametrize("settings", [("backend=torch", "precision=bf16_sr"), ("backend=deepspeed",)])
def test_samples_are_logged_and_change_no_loss(
    nano: MakeSpec, tokenizer: Path, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    """Stochastic rounding draws its numbers from the generator that sampling must leave alone."""
    common = (*settings, "steps=6", "save_every=2", "val_every=2")
    without = trained(nano(*common), tmp_path / "without")
    log = trained(nano(*common, *SAMPLES), tmp_path / "with")
    assert log.losses() == without.losses()
    assert [record["grad_norm"] for record in log.of("step")] == [r["grad_norm"] for r in without.of("step")]
    samples = [event for event in log.events if isinstance(event, Sample)]
    found = [(sample.step, sample.prompt, sample.tokens, sample.cut) for sample in samples]
    assert found == [(step, prompt, 40, False) for step in (2, 4, 6) for prompt in ("ab", "")]
    assert len({sample.text for sample in samples}) > 1
    kinds = [record["kind"] for record in log.records if record["kind"] in ("checkpoint", "sample")]
    assert kinds.count("checkpoint") == 3 and not warnings(log)


def endless(budget: Budget) -> Generator[Event | None, None, None]:
    while not budget.over:
        torch.rand(7)
        yield None
    yield Log(level="info", text="what there is")


def run_beside(nano: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work: Any, **log: Any) -> Any:
    """Train four steps and do ``work`` instead of samples after the second; return the reporter and the trainer."""
    spec = nano("precision=bf16_sr", "steps=4", "save_every=0", "val_every=0", "sample_every=2")
    reporter = RecordingReporter(**log)
    trainer = trainer_of(spec, tmp_path / "out", reporter)
    timed = trainer.timed_work

    def run(step: int) -> None:
        if step == 2:
            timed.run("work", work, 0.05, 1000)

    monkeypatch.setattr(trainer.sampler, "run", run)
    return reporter, trainer


def test_work_ends_with_its_budget_and_keeps_random_numbers(
    nano: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = trained(nano("precision=bf16_sr", "steps=4", "save_every=0", "val_every=0"), tmp_path / "without")
    log, trainer = run_beside(nano, tmp_path, monkeypatch, endless)
    trainer.run(None, None)
    assert log.losses() == without.losses()
    assert [record["text"] for record in log.of("log")] == ["what there is"]


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 15.47 GiB"), UserError("gone")],
)
def test_an_error_in_the_work_is_logged_and_the_run_goes_on(
    nano: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def failing(budget: Budget) -> Iterator[None]:
        yield None
        raise error

    log, trainer = run_beside(nano, tmp_path, monkeypatch, failing)
    assert trainer.run(None, None) == "finished"
    (text,) = warnings(log)
    assert text.startswith("work ended early: ") and ("gone" in text or "out of memory (2.00 GiB requested)" in text)


def test_work_without_room_is_skipped(nano: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, trainer = run_beside(nano, tmp_path, monkeypatch, endless)
    monkeypatch.setattr(trainer.backend, "capacity", lambda: 0)
    assert trainer.run(None, None) == "finished"
    (text,) = warnings(log)
    assert text.startswith("work skipped: it needs 0 MB of memory, the forecast leaves 0 MB")


def test_a_stop_does_not_wait_for_the_end_of_the_work(
    nano: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_end(budget: Budget) -> Iterator[Log]:
        while True:
            yield Log(level="info", text="piece")

    def stop(record: dict[str, Any]) -> list[Command]:
        return [Command(id="stop", request=StopRequest(save=False), by="test")] * (record["kind"] == "log")

    log, trainer = run_beside(nano, tmp_path, monkeypatch, without_end, respond=stop)
    assert trainer.run(None, None) == "stopped"
    assert len(log.of("log")) == 1 and list(log.losses()) == [1, 2]


def test_an_edit_begins_samples_only_with_a_tokenizer(nano: MakeSpec, tokenizer: Path, tmp_path: Path) -> None:
    spec = nano("steps=4", "save_every=0", "val_every=0", *SAMPLES[1:])
    log = trained(spec, tmp_path / "out", respond=set_at(1, {"sample_every": 3}))
    assert {record["step"] for record in log.of("sample")} == {3}
    tokenizer.unlink()
    log = trained(spec, tmp_path / "other", respond=set_at(1, {"sample_every": 3}))
    (edit,) = log.of("edit")
    assert not edit["ok"] and edit["why"].startswith("train.sample_every: 3 needs ") and not log.of("sample")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["train.sample_prompts=[]"], "is not a list of 1 to 16 texts"),
        (["train.sample_prompts=3"], "is not a list of 1 to 16 texts"),
        (["train.sample_prompts=[3]"], "is not text of up to 4096 characters"),
        (["train.sample_tokens=0"], "is not in 1..4096"),
        (["train.sample_seconds=0"], "is not in 0.1..3600"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: list[str], expected: str) -> None:
    with pytest.raises(SpecError, match=expected):
        load("cpu_demo", settings)


def test_mlx_and_prompts_outside_the_vocabulary_are_refused(nano: MakeSpec, tokenizer: Path) -> None:
    with pytest.raises(UserError, match="sample_every: 2 is not supported by --backend mlx"):
        check_samples(nano("backend=mlx", *SAMPLES))
    with pytest.raises(UserError, match="sample_prompts: 'ab' has the token id"):
        check_samples(nano("model.vocab_size=16", *SAMPLES))
