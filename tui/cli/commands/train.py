"""``mla-tui train``: trains in the foreground."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from tui.cli.command_parser import Subparsers, add_command
from tui.cli.spec_arguments import add_spec_arguments, add_start_arguments, spec_and_start
from tui.text.data_usage import usage_line

if TYPE_CHECKING:
    from profiles.spec import RunSpec


def register(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "train", "train in the foreground", "mla-tui train -p cpu_demo -s steps=20")
    add_spec_arguments(parser)
    add_start_arguments(parser)
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--deepspeed", action="store_const", dest="backend", const="deepspeed", help=argparse.SUPPRESS)
    parser.add_argument("--deepspeed_config", "--ds-config", metavar="FILE", help="use this DeepSpeed JSON config")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    from engine.preflight import check_memory, check_tokenizer, report_slow
    from engine.train.main import run_foreground
    from profiles.paths import default_home
    from profiles.unreached import unreached
    from tui.cli.line_printer import LinePrinter

    if args.deepspeed_config:
        args.overrides.append(f"launch.deepspeed_config={args.deepspeed_config}")
    spec, resume, init_from = spec_and_start(args)

    def notify(line: str) -> None:
        print(f"mla-tui: {line}", file=sys.stderr)

    def check(resolved: RunSpec) -> None:
        if resume is None:
            check_tokenizer(resolved)
        insists = args.force or resume is not None
        check_memory(resolved, default_home(), notify, insists=insists)
        report_slow(resolved, notify)
        for line in unreached(resolved):
            notify(line)
        print(usage_line(resolved), flush=True)

    show = LinePrinter(spec.train.steps)
    return run_foreground(spec, args.name, resume, init_from, show, check, args.data_changed)
