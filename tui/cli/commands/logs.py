"""``mla-tui logs``: prints the console output of the trainer."""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import TYPE_CHECKING, BinaryIO

from engine.events.phases import is_active
from profiles.reader import open_regular
from tui.cli.command_parser import Subparsers, add_command
from tui.cli.run_argument import add_run_argument, find_run
from tui.cli.terminal_output import ConsoleOutput

if TYPE_CHECKING:
    from engine.events.run_dir import RunDir


def register(subparsers: Subparsers) -> None:
    help = "print the console output of the trainer"
    parser = add_command(subparsers, "logs", help, "mla-tui logs latest -f")
    add_run_argument(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="keep printing until the run ends")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    run_dir = find_run(args)
    try:
        output = ConsoleOutput()
        with open_regular(run_dir.console_path) as file:
            while True:
                last = not args.follow or not is_active(run_dir.summary().phase)
                _print_rotated(run_dir, file, output)
                while chunk := file.read(1 << 16):
                    output.write(chunk)
                if last:
                    output.write(b"", final=True)
                    return 0
                time.sleep(0.3)
    except FileNotFoundError:
        print(f"mla-tui: run {run_dir.id}: no console output yet", file=sys.stderr)
        return 0


def _print_rotated(run_dir: RunDir, file: BinaryIO, output: ConsoleOutput) -> None:
    """If the console was rotated, print what was not read yet from the rotated copy, and go on in what is left."""
    offset = file.tell()
    if os.fstat(file.fileno()).st_size >= offset:
        return
    file.seek(0)
    try:
        with open_regular(run_dir.console_path.with_name("console.log.1")) as copy:
            size = copy.seek(0, os.SEEK_END)
            if offset > size:  # what was not copied is still in the file, now at its beginning
                file.seek(offset - size)
            copy.seek(min(offset, size))
            output.write(copy.read())
    except OSError:
        pass
