"""The ``mla-tui`` command line: builds the parser, runs one command, turns errors into exit codes.

Each command is a module of ``tui.cli.commands`` with its name: ``register`` adds its parser, ``run`` does the work.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from profiles.errors import OutputError, UserError
from profiles.printable import one_line
from tui.cli.address_space import prepare_for_limit
from tui.cli.command_parser import CommandParser
from tui.cli.standard_streams import drop_output, standard_streams
from tui.cli.terminal_output import printable_output

# In the order of ``--help``.
COMMANDS = (
    "launch",
    "train",
    "plan",
    "init",
    "tune",
    "sweep",
    "bench",
    "ls",
    "attach",
    "compare",
    "report",
    "tensorboard",
    "csv",
    "status",
    "tag",
    "note",
    "logs",
    "watch",
    "set",
    "pause",
    "resume",
    "checkpoint",
    "stop",
    "rm",
    "doctor",
    "hooks",
    "service",
    "sample",
    "samples",
    "eval",
    "checkpoints",
    "export",
    "data",
    "completion",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status: 0 ok, 1 failed, 2 usage error."""
    # Nothing we write may be writable for every user, whatever our umask: checkpoints could be replaced.
    os.umask(os.umask(0o077) | 0o002)
    prepare_for_limit()
    with standard_streams(), printable_output():
        return _run(sys.argv[1:] if argv is None else argv)


def _run(argv: Sequence[str]) -> int:
    """Run one command and write out what it printed: here an error of that is still one line."""
    code = 0
    try:
        try:
            code = _run_command(argv)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output, for example head, is gone
        drop_output()
    except OutputError as error:
        drop_output()
        print(f"mla-tui: {error}", file=sys.stderr)
        code = code or error.exit_code
    return code


def _run_command(argv: Sequence[str]) -> int:
    try:
        args = _parse(argv)
        command: Callable[[argparse.Namespace], int] = args.command
        return command(args)
    except (OutputError, BrokenPipeError):
        raise
    except UserError as error:
        print(f"mla-tui: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except MemoryError:
        print("mla-tui: out of memory; free some, or raise the limit of this process (ulimit -v)", file=sys.stderr)
        return 1
    except ImportError as error:  # it is missing, or a limit leaves too little memory for its libraries
        print(one_line(f"mla-tui: a package cannot be loaded: {error}; see: mla-tui doctor"), file=sys.stderr)
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        text = f"{where}{error.strerror or error}"
        if not where and _current_folder_is_gone():
            text = "the current folder was deleted; change to one that is there, for example: cd"
        print(one_line(f"mla-tui: {text}"), file=sys.stderr)
        return 1


def _current_folder_is_gone() -> bool:
    try:
        os.getcwd()
    except OSError:
        return True
    return False


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    """Return the arguments. Raises ``SpecError``; other usage errors are printed and exit."""
    parser = parser_of(argv)
    args, unrecognized = parser.parse_known_args(argv)
    if unrecognized:
        parser.error(f"unrecognized arguments: {' '.join(unrecognized)}{getattr(args, 'hint', '')}")
    if (args.read_only or args.low_bandwidth) and not args.opens_app:
        parser.error(
            "--read-only and --low-bandwidth are for the app: mla-tui --read-only, mla-tui attach RUN --read-only"
        )
    return args


def parser_of(argv: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser for a command line; with all commands where it names none."""
    parser = CommandParser(
        prog="mla-tui",
        description="Pre-train Multi-Head Latent Attention models on this machine. Without a command: open the app.",
    )
    import_module("tui.cli.commands.app").register(parser)  # as the commands below: none of them imports another
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND")
    # Import only the module of the command that is named first, so that it starts fast; --help needs them all.
    named = argv[0] if argv else ""
    for name in (named,) if named in COMMANDS else COMMANDS:
        import_module(f"tui.cli.commands.{name}").register(subparsers)
    return parser
