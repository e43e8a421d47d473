"""``mla-tui data``: packs text; inspects, verifies and imports token files; prints a run's data as text."""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiles.errors import SpecError, UserError
from tui.cli import data_inspect, data_pack, data_verify
from tui.cli.command_parser import Subparsers, add_command, add_subcommands
from tui.cli.profile_or_run import find_profile_or_run

if TYPE_CHECKING:
    from engine.events.run_dir import RunDir
    from profiles.spec import RunSpec


def register(subparsers: Subparsers) -> None:
    example = "mla-tui data inspect data/shards"
    parser = add_command(subparsers, "data", "pack text, and inspect the token shards of a data set", example)
    inner = add_subcommands(parser, required=True)
    data_pack.register(inner)

    data_inspect.register(inner)
    data_verify.register(inner)

    help = "make a phase of token files that lie elsewhere: links to them, checked"
    parser = add_command(inner, "import", help, "mla-tui data import fineweb10B --phase web --tokenizer tokenizer.json")
    parser.add_argument("source", metavar="PATH", help="a token file (.bin, .npy, .ds), or a folder of them")
    parser.add_argument("--phase", required=True, metavar="NAME", help="the phase to make, a run's data.phase")
    parser.add_argument("--out", default="data/shards", metavar="DIR", help="a run's data.root (default: %(default)s)")
    parser.add_argument("--tokenizer", metavar="FILE", help="the tokenizer.json that made the ids")
    help = "the token that ends a document, where the tokenizer has none of the usual ones"
    parser.add_argument("--eot", metavar="TOKEN", help=help)
    help = "files for validation, below PATH, such as '*_val_*'; without it those whose names say so"
    parser.add_argument("--val", default="", metavar="PATTERN", help=help)
    help = "type of ids that do not say it, such as uint16; without it the one they show"
    parser.add_argument("--dtype", metavar="TYPE", help=help)
    parser.set_defaults(command=import_files)

    help = "pack Python's own standard library: a small corpus for a first run"
    parser = add_command(inner, "demo", help, "mla-tui data demo")
    parser.add_argument("--out", default="data/shards", metavar="DIR", help="a run's data.root (default: %(default)s)")
    parser.add_argument("--phase", default="phase1", metavar="NAME", help="the phase to make (default: %(default)s)")
    help = "ids of the tokenizer that is trained on it (default: %(default)s)"
    parser.add_argument("--vocab", type=int, default=4096, metavar="N", help=help)
    parser.set_defaults(command=build_demo)

    help = "print the data of a run or profile, and its sequences as text"
    parser = add_command(inner, "show", help, "mla-tui data show latest --step 100")
    parser.add_argument("what", metavar="WHAT", help="a profile, or a run's name, a unique part of its id, or latest")
    parser.add_argument("--step", type=int, metavar="N", help="print a sequence of this step")
    help = "number of the sequence in the step, or in the epoch without --step; -1: the last"
    parser.add_argument("--sequence", type=int, metavar="K", help=help)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=show)


def import_files(args: argparse.Namespace) -> int:
    from data.dtypes import DTYPES
    from data.importing import ImportOptions, import_phase
    from profiles.names import check_below
    from profiles.paths import expand, expand_output

    if args.dtype is not None and args.dtype not in DTYPES:
        raise SpecError(f"--dtype {args.dtype}: is not one of {', '.join(DTYPES)}")
    tokenizer = expand(args.tokenizer, "--tokenizer") if args.tokenizer else None
    target = expand_output(args.out, "--out") / check_below("--phase", args.phase)
    options = ImportOptions(args.val, tokenizer, args.eot, DTYPES[args.dtype] if args.dtype else None)
    import_phase(expand(args.source, "PATH"), target, options, print)
    print(target)
    return 0


def build_demo(args: argparse.Namespace) -> int:
    """Build the built-in corpus; progress to stderr, its folder to stdout. Raise ``UserError``."""
    from data.corpus import build_corpus
    from profiles.names import check_below
    from profiles.paths import expand_output

    phase = check_below("--phase", args.phase)
    print(build_corpus(expand_output(args.out, "--out"), phase, args.vocab, report=partial(print, file=sys.stderr)))
    return 0


def show(args: argparse.Namespace) -> int:
    """Print a summary of the data, and with ``--step`` or ``--sequence`` one sequence."""
    from engine.train.data_check import changed_since

    spec, run = find_profile_or_run(args.what)
    phase = ", ".join(f"{name} ({weight:g})" for name, weight in spec.data.sources.items()) or spec.data.phase
    found: dict[str, Any] = {
        **{"root": spec.data.root, "phase": phase, "context": spec.batch.context},
        **{"sequences_per_step": spec.batch.sequences, "seed": spec.train.seed, "steps": spec.train.steps},
        **{"vocab_size": spec.model.config.vocab_size, "run": run.name if run else None, "window": None},
        **_summary(spec),
        **_usage(spec),
        "changed": changed_since(run, spec) if run else "",
    }
    if args.step is not None or args.sequence is not None:
        try:
            found["window"] = _window(spec, run, args.step, args.sequence)
        except UserError as error:
            if not args.json:
                raise
            found["window"] = {"problem": str(error)}
    print(json.dumps(found) if args.json else _text(found))
    for problem in found["problems"]:
        print(f"mla-tui: {problem}", file=sys.stderr)
    return 1 if found["problems"] else 0


def _summary(spec: RunSpec) -> dict[str, Any]:
    """Return the files of the phase, or of all sources of a mixture: their splits then have the name of the source."""
    from data.summary import dataset_summary

    vocab_size, context, validates = spec.model.config.vocab_size, spec.batch.context, spec.train.val_every > 0
    if not spec.data.sources:
        return dataset_summary(Path(spec.data.root), spec.data.phase, vocab_size, context, validates)
    found: dict[str, Any] = {"tokenizer": None, "problems": [], "splits": []}
    for phase in spec.data.sources:
        one = dataset_summary(Path(spec.data.root), phase, vocab_size, context, validates=False)
        found["tokenizer"] = found["tokenizer"] or one["tokenizer"]
        found["problems"] += one["problems"]
        found["splits"] += [{**split, "split": f"{phase}/{split['split']}"} for split in one["splits"]]
    return found


def _window(spec: RunSpec, run: RunDir | None, step: int | None, sequence: int | None) -> dict[str, Any]:
    """Return sequence number ``sequence`` of ``step``, or of the first epoch; numbers start at 1, -1 is the last."""
    from data.summary import token_texts
    from engine.train.replay import StepData, data_of_step, shards_of_spec

    if step is not None and run is not None:
        read = data_of_step(run, step)
    else:
        shards = shards_of_spec(spec)
        cursor = shards.order.start(spec.train.seed)
        if step is not None:
            if not 1 <= step <= spec.train.steps:
                raise UserError(f"step {step}: this profile has steps 1 to {spec.train.steps}")
            cursor = shards.order.advance(cursor, (step - 1) * spec.batch.sequences)
        read = StepData(spec, cursor, shards)
    count = read.spec.batch.sequences if step is not None else read.shards.sequences
    number = 1 if sequence is None else sequence if sequence >= 0 else count + 1 + sequence
    if not 1 <= number <= count:
        raise UserError(f"sequence {number}: choose one of 1 to {count}")
    found = read.shards.read(read.shards.order.advance(read.cursor, number - 1))
    ids = found.ids[:-1].tolist()
    return {
        **{"step": step, "sequence": number, "of": count, "epoch": found.epoch + 1, "position": found.position},
        **{"source": found.source, "shard": str(found.shard), "offset": found.offset, "ids": ids, "problem": ""},
        "texts": token_texts(found.phase, ids),
    }


def _usage(spec: RunSpec) -> dict[str, str]:
    """Return a line about what the run reads of the data; without data it is empty, and ``problems`` says why."""
    from tui.text.data_usage import usage_line

    try:
        return {"usage": usage_line(spec)}
    except UserError:
        return {"usage": ""}


def _text(found: dict[str, Any]) -> str:
    from tui.text.format import exact, size

    lines = [f"{found['root']}/{found['phase']}, context {found['context']}, vocabulary {exact(found['vocab_size'])}"]
    lines.append(f"tokenizer  {found['tokenizer'] or 'none'}")
    for split in found["splits"]:
        totals = f"{exact(split['tokens'])} tokens, {exact(split['sequences'])} sequences, {size(split['bytes'])}"
        lines.append(f"{split['split']:<10} {totals}")
        for file in split["files"]:
            state = file["problem"] and "damaged"
            state = state or f"{file['dtype']}, {exact(file['tokens'])} tokens, {exact(file['sequences'])} sequences"
            lines.append(f"  {file['path']}  {state}")
    lines += [found["usage"]] if found["usage"] else []
    lines += [f"changed since {found['run']} read it: {found['changed']}"] if found["changed"] else []
    if window := found["window"]:
        step = f"step {window['step']}, " if window["step"] else ""
        lines.append(f"{step}sequence {window['sequence']} of {exact(window['of'])}, epoch {window['epoch']}")
        lines.append(f"  {window['shard']} from token {exact(window['offset'])}")
        lines.append("".join(window["texts"]) if window["texts"] else " ".join(map(str, window["ids"])))
    return "\n".join(lines)
