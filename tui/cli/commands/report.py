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
from tui.cli.terminal_output import ConsoleOutput


def register(subparsers: Subparsers) -> None:
    help = "write an HTML page about one run or several"
    parser = add_command(subparsers, "report", help, "mla-tui report first second -o both.html")
    parser.add_argument("runs", metavar="RUN", nargs="+", help=RUN_HELP)
    help = "the page, or - for standard output (default: report-RUN.html in this folder)"
    parser.add_argument("-o", "--out", metavar="FILE", help=help)
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Write the page and print its path, or with ``-o -`` print the page. Raise ``UserError``.

    An earlier report is replaced, no other file.
    """
    from engine.host.version import VERSION
    from engine.runs.store import RunStore
    from tui.app.state.comparison import LETTERS, check_run_count
    from tui.cli.report.page import page
    from tui.cli.report.reported_run import read_run

    store = RunStore()
    run_dirs = list({run_dir.id: run_dir for run_dir in map(store.find, args.runs)}.values())
    check_run_count(len(run_dirs))
    out = None if args.out == "-" else _file(args.out or f"report-{Path(run_dirs[0].name).name}.html")
    runs = [read_run(letter, run_dir) for letter, run_dir in zip(LETTERS, run_dirs, strict=False)]
    text = page(runs, VERSION, time.time())
    if out is None:
        ConsoleOutput().write(text.encode(errors="replace"), final=True)
    else:
        _write(out, text)
        print(out)
    print(f"{len(runs)} run{'s' * (len(runs) > 1)}, {len(text) / 1e3:,.0f} kB", file=sys.stderr)
    return 0


def _write(out: Path, text: str) -> None:
    """Replace ``out`` by the page as a whole. Raise ``UserError``."""
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8", errors="replace")
        temporary.rename(out)
    except OSError as error:
        raise UserError(f"{out}: {error.strerror or error}; name another file with -o") from None
    finally:
        if temporary.exists():
            temporary.unlink()


def _file(text: str) -> Path:
    """Return the file ``text`` for the page. Raise ``UserError`` where there is something that is no report of ours."""
    from profiles.paths import expand
    from profiles.reader import open_regular
    from tui.cli.report.page import MARKER

    out = expand(text, "report")
    if out.is_dir():
        raise UserError(f"{out}: is a folder; name a file with -o")
    if out.exists():
        try:
            with open_regular(out) as stream:
                is_report = MARKER.encode() in stream.read(200)
        except OSError as error:
            raise UserError(f"{out}: {error.strerror or error}; name another file, or - for standard output") from None
        if not is_report:
            raise UserError(f"{out}: is there and is no report; name another file with -o")
    return out
