"""``mla-tui export``: converts a checkpoint for other programs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tui.cli.checkpoint_argument import find_checkpoint_argument
from tui.cli.command_parser import Subparsers, add_command
from tui.text.format import size


def register(subparsers: Subparsers) -> None:
    help = "convert a checkpoint for other programs"
    parser = add_command(subparsers, "export", help, "mla-tui export models/demo OUT --format hf")
    help = "a ckpt_step_N directory or the folder of a run's checkpoints"
    parser.add_argument("checkpoint", metavar="CKPT", help=help)
    parser.add_argument("out", metavar="OUT", help="a new or empty directory")
    parser.add_argument("--format", choices=("hf",), default="hf", help="hf: for transformers and mlx-lm")
    parser.add_argument(
        "--dtype", choices=("fp32", "bf16"), help="dtype of the weights (default: as in the checkpoint)"
    )
    parser.add_argument("--no-tokenizer", action="store_true", help="leave the tokenizer of the checkpoint out")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Convert the checkpoint; print the directory to stdout."""
    from engine.train.models.export import export

    source = find_checkpoint_argument(args.checkpoint)
    written = export(source, Path(args.out), args.dtype, with_tokenizer=not args.no_tokenizer)
    print(written.path)
    print(f"step {written.step}, {written.dtype}, {size(written.bytes)}", file=sys.stderr)
    if not (written.tokenizer or args.no_tokenizer):
        print("mla-tui: the checkpoint has no tokenizer.json; other programs will need one", file=sys.stderr)
    return 0
