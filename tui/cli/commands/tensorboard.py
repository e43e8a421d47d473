"""``mla-tui tensorboard``: writes the metrics of a run as an event file, at once or while the run goes on."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from profiles.errors import UserError
from tui.cli.command_parser import Subparsers, add_command
from tui.cli.run_argument import add_run_argument, find_run

if TYPE_CHECKING:
    from engine.events.run_dir import RunDir
    from engine.events.types import Event
    from tui.cli.tensorboard_file import EventFile

_PAUSE = 1.0  # seconds between looks at the log of an active run


def register(subparsers: Subparsers) -> None:
    help = "write the metrics of a run for TensorBoard"
    parser = add_command(subparsers, "tensorboard", help, "mla-tui tensorboard latest tb --follow")
    add_run_argument(parser)
    parser.add_argument("out", metavar="LOGDIR", help="the folder TensorBoard reads; the run gets one below it")
    parser.add_argument("--follow", action="store_true", help="go on until the run ends")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Write the file, an earlier one of the same run is replaced, and print its path. Raise ``UserError``."""
    from profiles.paths import expand_output
    from tui.cli.tensorboard_file import EventFile

    run_dir = find_run(args)
    path = expand_output(args.out, "LOGDIR") / Path(run_dir.name).name / f"events.out.tfevents.0.{run_dir.id}"
    steps = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as stream:
            print(path)
            file = EventFile(stream, time.time())
            for events in _batches(run_dir, args.follow):
                steps += _add(file, events)
                stream.flush()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; name another folder") from None
    print(f"{steps} steps", file=sys.stderr)
    return 0


def _batches(run_dir: RunDir, follow: bool) -> Iterator[list[Event]]:
    """Yield the records of the log as they come; to its present end, or with ``follow`` to the end of the run."""
    from engine.events.log import Tail
    from engine.events.phases import is_active

    tail = Tail(run_dir.log_path)
    try:
        while True:
            going = follow and is_active(run_dir.summary().phase)  # read before the log, which has all until then
            while events := tail.poll():
                yield [event for _, event in events]
            if not going:
                return
            time.sleep(_PAUSE)
    finally:
        tail.close()


def _add(file: EventFile, events: list[Event]) -> int:
    """Add the metrics of records; return how many steps there were."""
    from engine.events.metrics import STEP_METRICS, VAL_METRICS
    from engine.events.types import Eval, Start, Step, Val

    steps = 0
    for event in events:
        if isinstance(event, Start) and event.attempt > 1:
            file.restart(event.t, (event.resumed_from or 0) + 1)
        elif isinstance(event, Step | Val | Eval):
            metrics = STEP_METRICS if isinstance(event, Step) else VAL_METRICS
            values = ((metric.name, getattr(event, metric.field, None)) for metric in metrics)
            file.add(event.t, event.step, ((name, value) for name, value in values if value is not None))
            steps += isinstance(event, Step)
    return steps
