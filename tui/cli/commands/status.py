"""``mla-tui status``: prints the state of a run."""

from __future__ import annotations

import argparse
import json
import time
from contextlib import suppress
from pathlib import Path

from engine.checkpoints.evals import EvalResult, read_results
from engine.events.status import ProcessStatus
from engine.host.struct_json import to_dict
from profiles.errors import UserError
from profiles.printable import one_line
from tui.cli.command_parser import Subparsers, add_command
from tui.cli.run_argument import add_run_argument, find_run
from tui.cli.supervision import warn_of_version_mismatch
from tui.text.eval_text import result_lines


def register(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "status", "print the state of a run", "mla-tui status latest --json")
    add_run_argument(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    run_dir = find_run(args)
    summary = run_dir.summary()
    if summary.supervisor.alive:
        warn_of_version_mismatch(run_dir)
    evals = _evals(summary.checkpoint)
    if args.json:
        print(json.dumps({**to_dict(summary), "evals": [to_dict(one) for one in evals]}, indent=1))
        return 0
    for key, value in to_dict(summary).items():
        if key in ("supervisor", "trainer"):
            value = _process_text(getattr(summary, key), summary.host)
        elif key in ("started", "ended", "seen") and value:
            value = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
        elif key == "tags":
            value = " ".join(value)
        print(f"{key:<13} {'–' if value in (None, '') else one_line(str(value))}")
    for number, line in enumerate(result_lines(evals)):
        print(f"{'' if number else 'evals':<13} {line}")
    return 0


def _process_text(process: ProcessStatus, host: str | None) -> str | None:
    if process.pid is None:
        return None
    if process.alive is None:
        return f"pid {process.pid} on {host}, which cannot be checked from here"
    where = "" if process.visible else " of another container (pid namespace)"
    return f"pid {process.pid}{where}, {'alive' if process.alive else 'not running'}"


def _evals(checkpoint: str | None) -> list[EvalResult]:
    """Return what was measured on the newest checkpoint."""
    with suppress(UserError):  # mla-tui eval says what is wrong with the file
        return read_results(Path(checkpoint)) if checkpoint else []
    return []
