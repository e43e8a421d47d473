"""``mla-tui export``: a checkpoint in another program's format."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tui.cli.command_parser import Subparsers, add_command
from tui.text.format import size


def register(subparsers: Subparsers) -> None:
    words = "write a checkpoint for other programs"
    parser = add_command(subparsers, "export", words, "mla-tui export models/demo OUT --format hf")
    words = "a ckpt_step_N directory or the folder of a run's checkpoints"
    parser.add_argument("checkpoint", metavar="CKPT", help=words)
    parser.add_argument("out", metavar="OUT", help="a new or empty directory")
    parser.add_argument("--format", choices=("hf",), default="hf", help="hf: what transformers and mlx-lm read")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), help="of the weights (default: as in the checkpoint)")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Write the checkpoint in another program's format; the directory goes to stdout."""
    from engine.checkpoints.checkpoint import find
    from engine.train.models.export import export

    written = export(find(args.checkpoint, Path("models")), Path(args.out), args.dtype)
    print(written.path)
    print(f"step {written.step}, {written.dtype}, {size(written.bytes)}", file=sys.stderr)
    if not written.tokenizer:
        print("mla-tui: the checkpoint holds no tokenizer.json: readers will ask for one", file=sys.stderr)
    return 0
