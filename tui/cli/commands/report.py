"""``mla-tui report``: writes a page about runs, with charts, settings and all that happened, to read or to send."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from profiles.errors import UserError
from tui.cli.command_parser import Subparsers, add_command
from tui.cli.run_argument import RUN_HELP


def register(subparsers: Subparsers) -> None:
    help = "write an HTML page about one run or several"
    parser = add_command(subparsers, "report", help, "mla-tui report first second -o both.html")
    parser.add_argument("runs", metavar="RUN", nargs="+", help=RUN_HELP)
    parser.add_argument("-o", "--out", metavar="FILE", help="the page (default: report-RUN.html in this folder)")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Write the page and print its path. An earlier report is replaced, no other file. Raise ``UserError``."""
    from engine.host.version import VERSION
    from engine.runs.store import RunStore
    from profiles.paths import expand
    from tui.app.state.comparison import LETTERS, check_run_count
    from tui.cli.report.page import page
    from tui.cli.report.reported_run import read_run

    store = RunStore()
    run_dirs = list({run_dir.id: run_dir for run_dir in map(store.find, args.runs)}.values())
    check_run_count(len(run_dirs))
    out = expand(args.out or f"report-{Path(run_dirs[0].name).name}.html", "report").absolute()
    _check_replaceable(out)
    runs = [read_run(letter, run_dir) for letter, run_dir in zip(LETTERS, run_dirs, strict=False)]
    text = page(runs, VERSION, time.time())
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8", errors="replace")
        temporary.rename(out)
    except OSError as error:
        raise UserError(f"{out}: {error.strerror or error}; name another file with -o") from None
    finally:
        if temporary.exists():
            temporary.unlink()
    print(out)
    print(f"{len(runs)} run{'s' * (len(runs) > 1)}, {len(text) / 1e3:,.0f} kB", file=sys.stderr)
    return 0


def _check_replaceable(out: Path) -> None:
    """Raise ``UserError`` if there is something at ``out`` that is no report of ours."""
    from tui.cli.report.page import MARKER

    if out.is_dir():
        raise UserError(f"{out}: is a folder; name a file with -o")
    if not out.exists():
        return
    with open(out, "rb") as stream:
        if MARKER.encode() not in stream.read(200):
            raise UserError(f"{out}: is there and is no report; name another file with -o")
