"""``mla-tui export``: converts a checkpoint for other programs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from profiles.errors import SpecError
from tui.cli.checkpoint_argument import find_checkpoint_argument
from tui.cli.command_parser import Subparsers, add_command
from tui.text.format import size

_DTYPES = {"hf": ("fp32", "bf16"), "gguf": ("fp32", "f16", "bf16", "q8_0")}


def register(subparsers: Subparsers) -> None:
    help = "convert a checkpoint for other programs"
    parser = add_command(subparsers, "export", help, "mla-tui export models/demo demo.gguf")
    help = "a run, a ckpt_step_N directory or the folder of a run's checkpoints"
    parser.add_argument("checkpoint", metavar="CKPT", help=help)
    parser.add_argument("out", metavar="OUT", help="a new or empty directory; with gguf a new file")
    help = "hf: for transformers, vLLM and mlx-lm; gguf: for llama.cpp (default: gguf if OUT ends in .gguf, else hf)"
    parser.add_argument("--format", choices=tuple(_DTYPES), help=help)
    help = "dtype of the weights (default: hf as in the checkpoint, gguf f16); f16 and q8_0 are for gguf"
    parser.add_argument("--dtype", choices=_DTYPES["gguf"], help=help)
    parser.add_argument("--no-tokenizer", action="store_true", help="leave the tokenizer of the checkpoint out")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Convert the checkpoint; print the path to stdout. Raise ``UserError``."""
    format = args.format or ("gguf" if args.out.endswith(".gguf") else "hf")
    if args.dtype is not None and args.dtype not in _DTYPES[format]:
        raise SpecError(f"--dtype {args.dtype}: --format {format} takes {', '.join(_DTYPES[format])}")
    from engine.train.models.export import export
    from engine.train.models.export_gguf import export_gguf

    source = find_checkpoint_argument(args.checkpoint)
    write = export_gguf if format == "gguf" else export
    written = write(source, Path(args.out), args.dtype, with_tokenizer=not args.no_tokenizer)
    print(written.path)
    print(f"step {written.step}, {written.dtype}, {size(written.bytes)}", file=sys.stderr)
    if not (written.tokenizer or args.no_tokenizer):
        print("mla-tui: the checkpoint has no tokenizer.json; other programs will need one", file=sys.stderr)
    return 0
