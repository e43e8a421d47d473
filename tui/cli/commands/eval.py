"""``mla-tui eval``: measures a model on texts, shards and questions, and keeps the results beside its checkpoint."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from profiles.errors import SpecError
from profiles.paths import expand
from profiles.printable import counted, one_line
from tui.cli.checkpoint_argument import find_checkpoint_argument, reading, removed
from tui.cli.command_parser import Subparsers, add_command
from tui.cli.progress_line import ProgressLine
from tui.text.eval_text import result_lines
from tui.text.format import duration

if TYPE_CHECKING:
    from engine.checkpoints.evals import EvalResult
    from engine.train.evaluation.benchmark import Benchmark
    from engine.train.evaluation.loaded import LoadedModel

FORMATS = ("hellaswag", "arc", "piqa", "lambada")
_INPUTS = ("text", "shard", "data", "tasks")


def register(subparsers: Subparsers) -> None:
    help = "measure bits per byte and accuracy on your own files"
    parser = add_command(subparsers, "eval", help, "mla-tui eval latest --text notes.txt --tasks arc.jsonl")
    help = "a run (its newest checkpoint), a ckpt_step_N directory, or a Hugging Face directory"
    parser.add_argument("model", metavar="CKPT|RUN|HF_DIR", help=help)
    many = partial(parser.add_argument, action="extend", nargs="+", default=[])
    many("--text", metavar="FILE", help="bits per byte of a UTF-8 text")
    many("--shard", metavar="FILE", help="bits per byte of a token file, in sequences of the model's context")
    many("--data", metavar="DIR", help="the same of a split of a data set")
    parser.add_argument("--split", default="val", help="which split, or a bucket such as val/code (default val)")
    many("--tasks", metavar="FILE", help="questions as JSON lines: HellaSwag, ARC, PIQA or LAMBADA as published")
    help = "format of --tasks (default: recognised by its fields)"
    parser.add_argument("--format", choices=FORMATS, help=help)
    help = "only the first N questions, or windows of text; such results are printed and not kept"
    parser.add_argument("--limit", type=int, metavar="N", help=help)
    parser.add_argument("--ema", action="store_true", help="measure the average of the weights (optim.ema)")
    parser.add_argument("--show", action="store_true", help="print the results kept beside the checkpoints")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=run, hint="; name a file by its kind: mla-tui eval RUN --text FILE")


def run(args: argparse.Namespace) -> int:
    """Evaluate, or with ``--show`` print what was measured. Ctrl-C keeps the results of the files that are done."""
    given = [name for name in _INPUTS if getattr(args, name)]
    if args.limit is not None and args.limit < 1:
        raise SpecError(f"--limit: {args.limit} must be at least 1")
    if args.show and given:
        raise SpecError(f"--show: prints earlier results; leave it out to evaluate --{given[0]}")
    if args.show:
        return _show(args)
    if not given:
        raise SpecError("eval: nothing to measure; name a file with --text, --shard, --data or --tasks, or use --show")
    from engine.checkpoints.hold import held

    path = _find(args.model)
    with held(path):  # until the results are beside it
        return _evaluate(args, path)


def _find(text: str) -> Path:
    """Return the checkpoint or Hugging Face directory that ``text`` names. Raise ``UserError``."""
    from engine.train.models.pretrained import is_hugging_face

    path = expand(text, "model")
    return path if is_hugging_face(path) else find_checkpoint_argument(text)


def _show(args: argparse.Namespace) -> int:
    """Print the results of the checkpoint that is named; of a run, those of all its checkpoints."""
    from engine.checkpoints import checkpoint
    from engine.checkpoints.evals import EVALS_JSON, foreign_results, read_results
    from engine.checkpoints.retention import steps_of
    from engine.host.struct_json import to_dict

    path = _find(args.model)
    folders = [path]
    if checkpoint.NAME.fullmatch(path.name) and not checkpoint.NAME.fullmatch(Path(args.model).name):
        is_folder = expand(args.model, "model").resolve() == path.parent.resolve()
        steps = steps_of(path.parent, None if is_folder else checkpoint.owner(path))
        folders = [checkpoint.path_of_step(path.parent, step) for step in steps]
    found = {folder: results for folder in folders if (results := read_results(folder))}
    if args.json:
        print(json.dumps({str(f): [to_dict(one) for one in results] for f, results in found.items()}, indent=1))
    for folder, results in found.items() if not args.json else ():
        print(one_line(str(folder)))
        print("\n".join(f"  {line}" for line in result_lines(results)))
    for folder in folders:
        if foreign := foreign_results(folder):
            they = f"{counted(foreign, 'result')} of other weights, not shown"
            print(
                one_line(f"mla-tui: {folder / EVALS_JSON}: has {they}; remove it if it was copied there"),
                file=sys.stderr,
            )
    if not found:
        hint = f"measure with: mla-tui eval {shlex.quote(args.model)} --text FILE"
        print(one_line(f"mla-tui: {args.model}: no evaluation is kept; {hint}"), file=sys.stderr)
    return 0


def _evaluate(args: argparse.Namespace, path: Path) -> int:
    from engine.checkpoints.evals import EVALS_JSON, add_results, read_results, weights_id
    from engine.host.struct_json import to_dict
    from engine.train.evaluation.loaded import load_model

    read_results(path)  # a damaged file is known before the work
    weights = weights_id(path, args.ema)
    with reading(path, args.model):
        loaded = load_model(path, ema=args.ema)
    benchmarks = [build() for build in _benchmarks(args, loaded)]  # all are read before the first is measured
    results: list[EvalResult] = []
    code, why = 0, ""
    try:
        for number, one in enumerate(benchmarks, 1):
            results.append(_measure(loaded, one, f"{number}/{len(benchmarks)} {one.name}", args.ema))
            if args.limit is None and weights_id(path, args.ema) == weights:
                add_results(path, results)
            elif args.limit is None:
                code, why = 1, _not_kept(path, args.model)
    except KeyboardInterrupt:
        code, why = 130, f"stopped; {len(results)} of {len(benchmarks)} measured"
    except OSError as error:  # its folder may not be written to
        code, why = 1, f"{path}: the results cannot be kept: {error.strerror or error}"
    print(json.dumps([to_dict(one) for one in results], indent=1) if args.json else "\n".join(result_lines(results)))
    if results and args.limit is None and code != 1:
        print(one_line(f"kept in {path / EVALS_JSON}"), file=sys.stderr)
    if why:
        print(one_line(f"mla-tui: {why}"), file=sys.stderr)
    return code


def _not_kept(path: Path, given: str) -> str:
    """Return why results are not kept beside a checkpoint that is no longer the one that was measured."""
    why = removed(path, given) if not path.is_dir() else f"{path}: was saved again while it was measured"
    return f"the results are not kept: {why}"


def _benchmarks(args: argparse.Namespace, loaded: LoadedModel) -> Iterator[Callable[[], Benchmark]]:
    from engine.train.evaluation import benchmark

    for name in _INPUTS:
        for text in getattr(args, name):
            path = expand(text, f"--{name}")
            match name:
                case "text":
                    yield partial(benchmark.text_benchmark, loaded, path, args.limit)
                case "shard":
                    yield partial(benchmark.shard_benchmark, loaded, path, args.limit)
                case "data":
                    if not path.is_dir():
                        raise SpecError(f"--data: {path} is no folder; name that of a data set, as data/shards/phase1")
                    yield partial(benchmark.split_benchmark, loaded, path.absolute(), args.split, args.limit)
                case "tasks":
                    yield partial(benchmark.task_benchmark, loaded, path, args.format, args.limit)


def _measure(loaded: LoadedModel, one: Benchmark, label: str, ema: bool) -> EvalResult:
    from engine.checkpoints.evals import EvalResult
    from engine.host.version import VERSION
    from engine.train.evaluation.scoring import score

    line, started = ProgressLine(), time.monotonic()

    def between(done: int, total: int) -> None:
        if line.due():
            left = round((time.monotonic() - started) * (total - done) / done)
            line.bar(done / total, f"{label}  {duration(left)} left" if left else label)

    try:
        answers = score(loaded.model, one.requests, between)
    finally:
        line.clear()
    return EvalResult(
        name=one.name,
        format=one.format,
        metrics=one.metrics(answers),
        examples=one.examples,
        digest=one.digest,
        context=loaded.context,
        device=loaded.device,
        ema=ema,
        version=VERSION,
        seconds=round(time.monotonic() - started, 3),
        t=time.time(),
    )
