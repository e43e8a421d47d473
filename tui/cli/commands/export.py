"""``mla-tui export``: converts a checkpoint for other programs."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from profiles.errors import SpecError
from profiles.paths import expand_output
from tui.cli.checkpoint_argument import find_checkpoint_argument, reading
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
    parser.add_argument("--ema", action="store_true", help="the average of the weights (optim.ema), not the last ones")
    parser.add_argument("--no-tokenizer", action="store_true", help="leave the tokenizer of the checkpoint out")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Convert the checkpoint; print the path to stdout. Raise ``UserError``."""
    format = args.format or ("gguf" if args.out.endswith(".gguf") else "hf")
    if args.dtype is not None and args.dtype not in _DTYPES[format]:
        raise SpecError(f"--dtype {args.dtype}: --format {format} takes {', '.join(_DTYPES[format])}")
    from engine.train.models.export import export
    from engine.train.models.export_gguf import export_gguf

    out = expand_output(args.out, "OUT")
    source, tokenizer = find_checkpoint_argument(args.checkpoint), not args.no_tokenizer
    write = export_gguf if format == "gguf" else partial(export, log=_log_of(source))
    with reading(source, args.checkpoint):
        written = write(source, out, args.dtype, with_tokenizer=tokenizer, ema=args.ema)
    print(written.path)
    print(f"step {written.step}, {written.dtype}, {size(written.bytes)}", file=sys.stderr)
    if not (written.tokenizer or args.no_tokenizer):
        print("mla-tui: the checkpoint has no tokenizer.json; other programs will need one", file=sys.stderr)
    return 0


def _log_of(checkpoint: Path) -> Path | None:
    """Return the log of the run that saved ``checkpoint``, else of the newest that saved beside it, or None."""
    from engine.checkpoints.checkpoint import owner
    from engine.runs.store import RunStore

    store = RunStore()
    folder, id = checkpoint.resolve().parent, owner(checkpoint)
    if id in store.ids():
        return store.find(id).log_path
    runs = (one.id for one in store.summaries() if one.checkpoint and Path(one.checkpoint).parent.resolve() == folder)
    newest = max(runs, default=None)
    return store.find(newest).log_path if newest else None
