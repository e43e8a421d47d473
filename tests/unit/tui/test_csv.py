"""``mla-tui csv`` prints every step once, with all metrics of the registry."""

from __future__ import annotations

import contextlib
import csv
import io

import pytest

from engine.events.log import LogWriter
from engine.events.metrics import STEP_METRICS, VAL_METRICS
from engine.events.types import Start, Step, Val
from engine.runs.store import RunStore
from tests.unit.tui.conftest import Make, step_record
from tui.cli.main import main


def test_every_step_is_a_line_with_all_metrics(
    store: RunStore, make_run: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    run, writer = make_run("one", 5, phase="running")
    writer.write(Val(step=5, loss=9.5))
    with contextlib.closing(LogWriter(run.log_path, attempt=2)) as second:
        second.write(Start(resumed_from=3))
        second.write(Step(**step_record(4, 4.25)))
        second.write(Val(step=4, loss=2.25, bits_per_byte=1.5))
        second.write(Step(**step_record(5, None, mfu=0.5)))
    assert main(["csv", "one"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["step"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert set(rows[0]) == {"step", "t", *(metric.name for metric in (*STEP_METRICS, *VAL_METRICS))}
    assert (rows[3]["loss"], rows[3]["val_loss"], rows[3]["bits_per_byte"]) == ("4.25", "2.25", "1.5")
    assert (rows[4]["val_loss"], rows[4]["mfu"], rows[3]["mfu"]) == ("", "0.5", "")
    assert float(rows[4]["t"]) >= float(rows[0]["t"]) > 1e9


def test_validation_before_the_first_step_has_a_line_of_its_own(
    store: RunStore, make_run: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    _, writer = make_run("one", 0, phase="running")
    writer.write(Val(step=0, loss=8.0))
    writer.write(Step(**step_record(1, 7.0)))
    assert main(["csv", "one"]) == 0
    first, second = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (first["step"], first["val_loss"], first["loss"]) == ("0", "8.0", "")
    assert (second["step"], second["val_loss"], second["loss"]) == ("1", "", "7.0")
