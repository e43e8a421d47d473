"""A validation gives its loss in bits per byte of text too, where the bytes of the split are known."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest

from engine.events.status import Summary
from engine.events.types import Val
from engine.train.backends.build import build_backend
from engine.train.backends.ranks import SingleRank
from engine.train.loop import Trainer
from engine.train.run_state import RunState
from profiles.spec import RunSpec
from tests.unit.train.tiny_runs import MakeSpec, RecordingReporter
from tui.text.event_text import describe
from tui.text.run_text import describe_outcome

SETTINGS = ("steps=2", "val_every=2", "save_every=0")


def validate(spec: RunSpec, out: Path) -> list[Val]:
    log = RecordingReporter()
    Trainer(RunState(spec), build_backend(spec, SingleRank()), log, out).run(None, None)
    return [event for event in log.events if isinstance(event, Val)]


def write_dataset(folder: Path, bytes_per_token: float, tokens: int = 2000) -> None:
    val = {"bytes": int(tokens * bytes_per_token), "tokens": tokens}
    (folder / "dataset.json").write_text(json.dumps({"splits": {"val": val}}))


def test_bits_per_byte_are_the_loss_of_a_byte(nano: MakeSpec, tmp_path: Path) -> None:
    write_dataset(tmp_path / "shards" / "phase1", 2.5)
    first, last = validate(nano(*SETTINGS), tmp_path / "out")
    assert (first.step, last.step) == (0, 2)
    for val in (first, last):
        assert val.loss is not None and val.bits_per_byte == pytest.approx(val.loss / math.log(2) / 2.5)
    said = describe(last)
    assert said and said[0].endswith(f"loss {last.loss:.3f}, {last.bits_per_byte:.3f} bits per byte")
    summary = Summary(phase="finished", step=2, val_loss=last.loss, bits_per_byte=last.bits_per_byte)
    assert f"validation loss {last.loss:.4f}, {last.bits_per_byte:.3f} bits per byte" in describe_outcome(summary)


def test_of_a_mixture_they_are_over_the_bytes_of_all_sources(nano: MakeSpec, tmp_path: Path) -> None:
    one, other = tmp_path / "shards" / "phase1", tmp_path / "shards" / "code"
    shutil.copytree(one, other)
    write_dataset(one, 2.0)
    write_dataset(other, 4.0)
    _, last = validate(nano(*SETTINGS, "data.sources={phase1 = 0.5, code = 0.5}"), tmp_path / "out")
    assert last.loss is not None and last.bits_per_byte == pytest.approx(last.loss / math.log(2) / 3)


def test_without_known_bytes_there_are_none(nano: MakeSpec, tmp_path: Path) -> None:
    _, last = validate(nano(*SETTINGS), tmp_path / "out")
    assert last.bits_per_byte is None
    said = describe(last)
    assert said and "bits" not in said[0]


def test_the_log_says_which_counts_are_wrong(nano: MakeSpec, tmp_path: Path) -> None:
    log = RecordingReporter()
    write_dataset(tmp_path / "shards" / "phase1", 200.0, tokens=1000)
    spec = nano(*SETTINGS)
    Trainer(RunState(spec), build_backend(spec, SingleRank()), log, tmp_path / "out").run(None, None)
    path = tmp_path / "shards" / "phase1" / "dataset.json"
    bytes_, tokens = [alert["text"] for alert in log.of("alert")]
    assert bytes_.startswith(f"{path}: splits.val.bytes is 200000, which cannot be: for 1000 tokens 200 a token; ")
    assert tokens.startswith(f"{path}: splits.val.tokens is 1000, its files hold 2000: ")
