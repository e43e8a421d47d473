"""A run of a mixture: exact over edits and a change of its weights, which is asked for, and known for each step."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from data.cursor import Cursor
from data.splits import open_split
from engine.checkpoints import checkpoint
from engine.events.log import LogWriter
from engine.events.requests import SetRequest
from engine.events.run_dir import RunDir
from engine.events.status import Launch, RunStatus
from engine.events.types import Command
from engine.runs.store import RunStore
from engine.train.backends.ranks import SingleRank
from engine.train.data_check import check_data_of_run, recorded_data
from engine.train.main import Attempt
from engine.train.main import train as train_attempt
from engine.train.replay import data_of_step
from profiles.errors import NeedsAttentionError
from profiles.spec import RunSpec
from tests.unit.train.tiny_runs import MakeSpec, RecordingReporter

FIRST, THEN = "data.sources={phase1 = 0.75, code = 0.25}", "data.sources={phase1 = 0.25, code = 0.75}"


def attempt(run: RunDir, spec: RunSpec, resume: Path | None, reporter: RecordingReporter) -> None:
    """Train as the trainer of ``run`` does, and write its records to the log."""
    before = len(reporter.events)
    trained = Attempt(spec, run.path.parent.parent / "out", resume, None, run="")
    train_attempt(trained, reporter, SingleRank(), lambda trainer: None, partial(check_data_of_run, run))
    log = LogWriter(run.log_path, 1)
    for event in reporter.events[before:]:
        log.write(event)
    log.close()


def test_a_change_of_weights_is_a_segment_and_every_step_is_known(nano: MakeSpec, tmp_path: Path) -> None:
    (tmp_path / "shards/code").mkdir()
    for split, count in (("train", 3000), ("val", 600)):  # nanoGPT's layout, 32-bit ids
        (np.arange(count) * 7 % 256).astype("<u4").tofile(tmp_path / f"shards/code/{split}.bin")
    settings = ("save_every=1", "keep=100", "val_every=4")
    edit = [Command(id="id", request=SetRequest(changes={"micro": 2}), by="test")]
    reporter = RecordingReporter(lambda r: edit if (r["kind"], r.get("step")) == ("step", 2) else [])
    first = nano(FIRST, "steps=4", *settings)
    training = RunStatus(phase="running", attempt=1)
    one = RunStore(tmp_path / "one").create(first, Launch(), training)
    attempt(one, first, None, reporter)

    saved = tmp_path / "one/out/ckpt_step_4"
    then = nano(THEN, "steps=10", *settings)
    refused = RunStore(tmp_path / "refused").create(then, Launch(resume=str(saved)), training)
    with pytest.raises(NeedsAttentionError, match=r"the weight of code is 0.75, not 0.25"):
        attempt(refused, then, saved, RecordingReporter())
    accepted = Launch(resume=str(saved), data_changed=True)
    two = RunStore(tmp_path / "two").create(then, accepted, training)
    shorter = Command(id="id", request=SetRequest(changes={"context": 16}, unlock=True), by="test")
    other = RecordingReporter(lambda r: [shorter] if (r["kind"], r.get("step")) == ("step", 7) else [])
    attempt(two, then, saved, other)

    cursors = {
        step: Cursor.from_dict(checkpoint.metadata(tmp_path / f"{run}/out/ckpt_step_{step}")["cursor"])
        for run, steps in (("one", range(1, 5)), ("two", range(5, 11)))
        for step in steps
    }
    for step in (*range(2, 5), *range(6, 8), *range(9, 11)):
        assert data_of_step(one if step < 5 else two, step).cursor == cursors[step - 1]
    assert [(segment.context, segment.sequences) for segment in cursors[10].segments] == [(32, 32), (32, 24)]
    windows = [open_split(then, "train").order.counts[k] for k in (0, 1)]
    places = zip(cursors[7].sources, windows, strict=True)
    assert [place.epoch * count + place.position for place, count in places] == [8 + 18, 24 + 6]
    assert [place.epoch for place in data_of_step(two, 8).cursor.sources] == [1, 1]  # a context has its own epochs
    assert cursors[10].consumed == 24 and cursors[10].tokens == 56 * 32 + 24 * 16
    started = other.of("start")[0]["data"]
    weights = recorded_data(two, started["digest"]).weights  # type: ignore[union-attr]
    assert started["new_segment"] and dict(weights) == {"phase1": 0.25, "code": 0.75}
    begun = data_of_step(two, 5)
    assert begun.cursor.sources == cursors[4].sources and begun.cursor.consumed == 0  # each source where it was
    read = open_split(then, "train").read_batch(begun.cursor, 8)[0]
    for k, row in enumerate(read):
        assert np.array_equal(begun.shards.read(begun.shards.order.advance(begun.cursor, k)).ids, row)
    for record in (*reporter.of("val"), *other.of("val")):
        assert record["sources"].keys() == {"code", "phase1"}
        assert min(record["sources"].values()) <= record["loss"] <= max(record["sources"].values())
