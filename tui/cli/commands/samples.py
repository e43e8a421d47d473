"""``mla-tui samples``: prints the text that a run generated while it trained."""

from __future__ import annotations

import argparse
import json
import sys

from profiles.errors import UserError
from tui.cli.command_parser import Subparsers, add_command
from tui.cli.run_argument import add_run_argument, find_run
from tui.cli.terminal_output import data_output
from tui.text.format import exact
from tui.text.sample_text import NONE_BY_MLX, describe_sample


def register(subparsers: Subparsers) -> None:
    help = "print the text that a run generated from its prompts, step by step"
    parser = add_command(subparsers, "samples", help, "mla-tui samples latest --step 2000")
    add_run_argument(parser)
    parser.add_argument("--step", type=int, help="only those of this step")
    parser.add_argument("--json", action="store_true", help="print a list of the records")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Print the samples, the oldest first. Raise ``UserError`` if there is no such run, or no sample of the step."""
    from engine.events.samples import Samples
    from engine.host.struct_json import to_dict

    run_dir = find_run(args)
    samples = Samples(run_dir.log_path)
    samples.poll()
    hint = NONE_BY_MLX if run_dir.summary().backend == "mlx" else _HINT + ("" if run_dir.ended() else _OR_LIVE)
    if args.step is not None and args.step not in samples.steps:
        steps = ", ".join(map(exact, samples.steps[-5:]))
        raise UserError(f"--step: {args.step} has no samples; " + (f"the newest are of {steps}" if steps else hint))
    found = samples.found if args.step is None else samples.of_step(args.step)
    out = data_output()
    if args.json:
        print(json.dumps([to_dict(sample) for sample in found], indent=1), file=out)
        return 0
    for sample in found:
        print(f"── step {exact(sample.step)} · {describe_sample(sample)}\n{sample.prompt}{sample.text}\n", file=out)
    if not found:
        print(f"mla-tui: {run_dir.shown_name} has no samples; {hint}", file=sys.stderr)
    return 0


_HINT = "train.sample_every in the profile makes them"
_OR_LIVE = ", also mla-tui set RUN sample_every=200"
