"""``mla-tui csv``: prints the metrics of a run, a line per step."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from tui.cli.command_parser import Subparsers, add_command
from tui.cli.run_argument import add_run_argument, find_run
from tui.cli.terminal_output import data_output

if TYPE_CHECKING:
    from engine.events.types import Eval, Step, Val


def register(subparsers: Subparsers) -> None:
    help = "print the metrics of every step as CSV"
    parser = add_command(subparsers, "csv", help, "mla-tui csv latest > steps.csv")
    add_run_argument(parser)
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Print a header, then a line per step. Raise ``UserError`` if there is no such run."""
    import csv

    from engine.events.metrics import STEP_METRICS, VAL_METRICS
    from engine.events.valid_records import valid_records

    run_dir = find_run(args)
    names = ["step", "t", *(metric.name for metric in (*STEP_METRICS, *VAL_METRICS))]
    writer = csv.DictWriter(data_output(), names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_rows(valid_records(run_dir.log_path)))
    return 0


def _rows(records: Iterable[Step | Val | Eval]) -> Iterator[dict[str, Any]]:
    """Yield the values of each step by name, also of its validation and evaluation. None is an empty field."""
    from engine.events.metrics import STEP_METRICS, VAL_METRICS
    from engine.events.types import Step

    row: dict[str, Any] = {}
    for record in records:
        if row and record.step != row["step"]:
            yield row
            row = {}
        metrics = STEP_METRICS if isinstance(record, Step) else VAL_METRICS
        values = {m.name: getattr(record, m.field) for m in metrics if hasattr(record, m.field)}
        row = {"step": record.step, "t": record.t, **row, **values}
    if row:
        yield row
