"""``mla-tui compare``: prints runs side by side, and the differences of their specs."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.host.struct_json import to_dict
from profiles.errors import SpecError, UserError
from tui.cli.command_parser import Subparsers, add_command
from tui.cli.run_argument import RUN_HELP
from tui.text import format as fmt
from tui.text.eval_text import result_lines
from tui.text.run_text import phase_name

if TYPE_CHECKING:
    from engine.checkpoints.evals import EvalResult
    from engine.events.run_dir import RunDir
    from tui.app.state.comparison import ComparedRun

_MIN_NAME = 12


def register(subparsers: Subparsers) -> None:
    help = "compare runs: losses at the same step, different settings"
    parser = add_command(subparsers, "compare", help, "mla-tui compare first second --by tokens")
    parser.add_argument("runs", metavar="RUN", nargs="+", help=RUN_HELP)
    help = "compare losses at the same step, tokens or time (default step)"
    parser.add_argument("--by", choices=("step", "tokens", "time"), default="step", help=help)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    import asyncio

    from engine.runs.store import RunStore
    from tui.app.state.comparison import check_run_count
    from tui.app.state.data_read import data_note
    from tui.app.state.spec_diff import compared_spec, differences

    store = RunStore()
    run_dirs = {run_dir.id: run_dir for run_dir in map(store.find, args.runs)}
    if len(run_dirs) < 2:
        raise SpecError(f"compare: {next(iter(run_dirs))}: only one run; name two or more (mla-tui ls lists them)")
    check_run_count(len(run_dirs))
    runs = asyncio.run(_read(list(run_dirs.values())))
    specs = [compared_spec(run_dir) for run_dir in run_dirs.values()]
    rows = _rows(runs, args.by)
    differing = differences([spec for spec in specs if spec])
    evals = [_evals_of(run_dir) for run_dir in run_dirs.values()]
    if args.json:
        for row, results in zip(rows, evals, strict=True):
            row["evals"] = [to_dict(result) for result in results]
        differing = {key: [spec.get(key) for spec in specs] for key in differing}
        answer = {"by": args.by, "at": _common_x(runs, args.by), "runs": rows, "differences": differing}
        print(json.dumps(answer, indent=1))
        return 0
    phases = [phase_name(run.summary) for run in runs]
    print("\n".join(_table(rows, phases, args.by, _common_x(runs, args.by))))
    if note := data_note([run.data for run in runs]):
        print(note)
    for row in rows:
        if labels := [*(f"#{tag}" for tag in row["tags"]), *filter(None, [row["note"]])]:
            print(f"{row['letter']}: {' '.join(labels)}")
    readable = [(run.letter, spec) for run, spec in zip(runs, specs, strict=True) if spec]
    for run, spec in zip(runs, specs, strict=True):
        if not spec:
            print(f"{run.letter}: spec.json is missing or damaged; not compared below", file=sys.stderr)
    print("\n".join(["", *_difference_lines(differing, [letter for letter, _ in readable])]))
    if lines := _eval_lines(runs, evals):
        print("\n".join(["", "evaluations of the newest checkpoints", *lines]))
    return 0


def _evals_of(run_dir: RunDir) -> list[EvalResult]:
    """Return what was measured on the newest checkpoint of a run."""
    from engine.checkpoints.evals import read_results

    newest = run_dir.state().checkpoint
    with suppress(UserError):  # mla-tui eval says what is wrong with the file
        return read_results(Path(newest)) if newest else []
    return []


def _eval_lines(runs: list[ComparedRun], evals: list[list[EvalResult]]) -> list[str]:
    """Return a line for each result, those of the same file together, so that runs are below each other."""
    found = sorted(
        (result.label, result.format, run.letter, line)
        for run, results in zip(runs, evals, strict=True)
        for result, line in zip(results, result_lines(results), strict=True)
    )
    return [f"  {letter}  {line}" for _, _, letter, line in found]


async def _read(run_dirs: list[RunDir]) -> list[ComparedRun]:
    from tui.app.state.comparison import LETTERS, REQUIRED_SERIES, ComparedRun, RunReader

    runs = []
    for letter, run_dir in zip(LETTERS, run_dirs, strict=False):
        run = ComparedRun(letter, run_dir.id)
        if (update := await RunReader(run_dir).poll(REQUIRED_SERIES)) is not None:
            run.apply(update)
        runs.append(run)
    return runs


def _common_x(runs: list[ComparedRun], axis: str) -> float | None:
    """Return the largest x that every run reached; None if one has no steps, or its times or tokens are unknown."""
    reached = [run.last_x("loss", axis) for run in runs]
    known = [x for x in reached if x is not None]
    return min(known) if known and len(known) == len(reached) else None


def _rows(runs: list[ComparedRun], axis: str) -> list[dict[str, Any]]:
    """Return a row for each run; ``loss_at`` is the loss at the largest x that every run reached."""
    at = _common_x(runs, axis)
    losses = [None if at is None else run.value_at("loss", axis, at) for run in runs]
    rows: list[dict[str, Any]] = []
    for run, loss in zip(runs, losses, strict=True):
        keys = ("id", "name", "phase", "step", "steps", "loss", "val_loss", "bits_per_byte", "tags", "note")
        facts = {key: getattr(run.summary, key) for key in keys}
        facts |= {"best_loss": run.lowest("loss"), "best_val_loss": run.lowest("val_loss")}
        facts |= {"tok_s": run.mean("tok_s")}
        facts |= {"tokens": run.tokens, "seconds": run.last_x("loss", "time")}
        delta = None if loss is None or losses[0] is None else loss - losses[0]
        facts |= {"loss_at": loss, "delta": delta}
        rows.append({"letter": run.letter, **facts})
    return rows


def _table(rows: list[dict[str, Any]], phases: list[str], axis: str, at: float | None) -> list[str]:
    from tui.text.ellipsis import clip_middle

    known = any(row["bits_per_byte"] is not None for row in rows)
    bits = {"bits/byte": "bits_per_byte"} if known else {}  # of the last validation
    heads = (
        "phase",
        "step",
        "tokens",
        "time",
        "loss",
        "best",
        "val",
        "best val",
        *bits,
        "tok/s",
        "loss at x",
        "Δ to A",
    )
    cells = [
        [
            phase,
            f"{row['step'] or 0}/{fmt.count(row['steps']) if row['steps'] else '?'}",
            fmt.count(row["tokens"]),
            fmt.NOTHING if row["seconds"] is None else fmt.short_duration(row["seconds"]),
            *(fmt.loss(row[key]) for key in ("loss", "best_loss", "val_loss", "best_val_loss", *bits.values())),
            fmt.count(row["tok_s"]),
            fmt.loss(row["loss_at"]),
            fmt.NOTHING if row["delta"] is None else f"{row['delta']:+.3f}",
        ]
        for row, phase in zip(rows, phases, strict=True)
    ]
    widths = [max(len(head), *(len(line[i]) for line in cells)) for i, head in enumerate(heads)]
    space = shutil.get_terminal_size((200, 24)).columns - 4 - sum(widths) - 2 * len(widths)
    names = [str(row["name"] or row["id"]) for row in rows]
    name = max(min(max(map(len, names)), space), _MIN_NAME)
    lines = ["   " + "run".ljust(name) + "".join(f"  {head:>{w}}" for head, w in zip(heads, widths, strict=True))]
    for row, text, line in zip(rows, names, cells, strict=True):
        columns = "".join(f"  {cell:>{w}}" for cell, w in zip(line, widths, strict=True))
        lines.append(f"{row['letter']}  {clip_middle(text, name).ljust(name)}{columns}")
    if at is None:
        return [*lines, f"x: for at least one run the {axis} axis is not known"]
    without = f" ({fmt.NOTHING}: no loss there)" if any(row["loss_at"] is None for row in rows) else ""
    reached = f"x: {_x_text(axis, at)}, the last that every run reached{without}"
    return [*lines, f"{reached}; best: the lowest of a single step; tok/s: mean"]


def _x_text(axis: str, x: float) -> str:
    if axis == "step":
        return f"step {fmt.exact(x)}"
    return f"{fmt.count(x)} tokens" if axis == "tokens" else f"{fmt.duration(x)} after the first step"


def _difference_lines(differing: dict[str, list[Any]], letters: list[str]) -> list[str]:
    if not differing:
        return ["the specs are equal"]
    from tui.app.state.spec_diff import group_by_value

    width = max(map(len, differing))
    lines = ["differences of the specs and the data"]
    for key, values in differing.items():
        lines.append(f"  {key:<{width}}" + "".join(f"  {who} {text}" for who, text in group_by_value(values, letters)))
    return lines
