"""``mla-tui bench``: how fast this machine trains a spec, or each of a grid of them."""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
import textwrap
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from profiles.errors import SpecError
from tui.cli.command_parser import Subparsers, add_command
from tui.cli.spec_arguments import add_spec_arguments
from tui.text.format import count, duration, size

if TYPE_CHECKING:
    from engine.train.measure.grid import Budget, Cell

PARTS = ("data", "forward", "backward", "optimizer")
HEAD = f"{'tok/s':>6} {'step':>8} {'data':>4} {'fwd':>4} {'bwd':>4} {'opt':>4} {'peak':>8} {'share':>5}"
LINE = 79
MOST_LABEL = LINE - len(HEAD) - 1
BAR = 20


def register(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "bench", "measure how fast a run trains", "mla-tui bench --grid micro=4,8")
    add_spec_arguments(parser)
    parser.add_argument(
        "--grid", action="append", default=[], metavar="K=V,V", help="every combination of these, e.g. micro=4,8"
    )
    parser.add_argument("--steps", type=int, metavar="N", help="how many steps to time, instead of a time")
    parser.add_argument("--seconds", type=float, default=20.0, metavar="S", help="time steps for so long (default 20)")
    parser.add_argument("--cap-gib", type=float, metavar="G", help="allocate no more of the device than this")
    parser.add_argument("--synthetic", action="store_true", help="random tokens, whatever data there is")
    parser.add_argument("--json", action="store_true", help="as JSON, a list of measurements")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    from engine.train.measure import grid
    from profiles.registry import detect_profile

    budget = _budget(args)
    overrides = [*args.overrides, *([f"launch.backend={args.backend}"] if args.backend else [])]
    todo = grid.grid_cells(args.profile or detect_profile(), overrides, args.grid, args.synthetic)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # show what there is and leave no process behind
    found: list[dict[str, Any]] = []
    interrupted = False
    try:
        for number, cell in enumerate(todo):
            found.append(grid.measure_cell(cell, budget, Bar(number, todo)))
    except KeyboardInterrupt:
        interrupted = True
    finally:
        Bar.clear()
    if args.json:
        print(json.dumps(found, indent=1))
    elif found:
        print("\n".join(table(found)))
    if interrupted:
        print(f"mla-tui: stopped; {len(found)} of {len(todo)} measured", file=sys.stderr)
        return 130
    return 0 if any("error" not in result for result in found) else 1


class Bar:
    """A line on stderr that says which of the cells is being measured; nothing where stderr is no terminal."""

    def __init__(self, number: int, todo: list[Cell]) -> None:
        self.number, self.of = number, len(todo)
        self.label = _label(todo[number].changes)
        self(0.0)

    def __call__(self, elapsed: float) -> None:
        if sys.stderr.isatty():
            filled = BAR * self.number // self.of
            bar = f"[{'#' * filled}{'.' * (BAR - filled)}] {self.number + 1} of {self.of}, {duration(elapsed)}"
            print(f"\r\x1b[K{f'{bar}  {self.label}'[:LINE]}", end="", file=sys.stderr, flush=True)

    @staticmethod
    def clear() -> None:
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def table(found: list[dict[str, Any]]) -> list[str]:
    """A line for each measurement, below one that names the columns and above what they mean; 79 columns."""
    rows = [[key.rpartition(".")[2] for key in found[0]["changes"]] or ["model"]]
    rows += [list(result["changes"].values()) or [result["model"]] for result in found]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    names, *labels = [" ".join(map(str.ljust, row, widths)) for row in rows]
    beside = len(names) <= MOST_LABEL  # else above its numbers, on a line of its own
    lines = [f"{names} {HEAD}"] if beside else [names.rstrip(), f"  {HEAD}"]
    for label, result in zip(labels, found, strict=True):
        start = f"{label} " if beside else "  "
        lines += [] if beside else [label.rstrip()]
        lines.append(f"{start}{_numbers(result, LINE - len(start))}")
    notes = _notes([result for result in found if "error" not in result])
    return [*lines, "", *(line for note in notes for line in textwrap.wrap(note, LINE, subsequent_indent="  "))]


def _numbers(result: dict[str, Any], width: int) -> str:
    if "error" in result:
        error = result["error"]
        return error if len(error) <= width else f"{error[: width - 1]}…"
    split, step_s = result["split_s"], result["step_s"]["median"]
    shares = " ".join(f"{split[part] / sum(split.values()):>4.0%}" for part in PARTS)
    step = f"{1000 * step_s:.0f} ms" if step_s < 10 else duration(step_s)
    peak = size(_peak(result["peak"]))
    return f"{count(result['tok_s']):>6} {step:>8} {shares} {peak:>8} {result['matmul_peak_fraction']:>5.0%}"


def _notes(told: list[dict[str, Any]]) -> list[str]:
    """What the columns mean, and where and on what they were measured."""
    if not told:
        return ["nothing was measured"]
    from engine.train.measure.grid import SYNTHETIC, WARMUP_STEPS

    first = told[0]
    on_device = first["peak"]["device"] is not None
    where = first["device_name"] if on_device else f"{first['device_name']}, {first['threads']} threads"
    data = "random tokens" if first["data"] == SYNTHETIC else "shards"
    slowest = max(result["step_s"]["max"] / result["step_s"]["median"] for result in told)
    warmup = max(result["warmup_s"] for result in told)
    return [
        f"{first['model']}, {count(first['params'])} parameters; {where}; torch {first['versions']['torch']};"
        f" data: {data}",
        f"step: the median of {_range(result['step_s']['steps'] for result in told)}, the slowest {slowest:.2f} times"
        f" its median; before them {WARMUP_STEPS} to warm up and compile, {duration(warmup)} at most",
        "data, fwd, bwd, opt: shares of steps measured apart, which wait for the device after each part",
        f"peak: {'allocated on the device' if on_device else 'in RAM, above what torch takes by itself'}",
        f"share: of what matmuls of the model's shapes reach here,"
        f" {_range((result['matmul_peak_flop_s'] for result in told), _flop_s)}"
        f" in {', '.join(sorted({result['plan']['precision'] for result in told}))}",
    ]


def _range(values: Iterable[float], form: Callable[[float], str] = str) -> str:
    """The lowest and the highest, or the one there is."""
    given = list(values)
    low, high = form(min(given)), form(max(given))
    return low if low == high else f"{low} to {high}"


def _flop_s(value: float) -> str:
    return f"{value / 1e12:.4g} TFLOP/s" if value >= 1e12 else f"{value / 1e9:.4g} GFLOP/s"


def _peak(peak: dict[str, int | None]) -> int | None:
    return peak["host"] if peak["device"] is None else peak["device"]


def _label(changes: dict[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in changes.items())


def _budget(args: argparse.Namespace) -> Budget:
    """How long, and in how much memory. Raises ``SpecError``."""
    from engine.train.measure.grid import Budget
    from profiles.nvml import visible_device

    if args.steps is not None and args.steps < 1:
        raise SpecError(f"--steps: {args.steps} is not at least 1")
    if not (math.isfinite(args.seconds) and args.seconds > 0):
        raise SpecError(f"--seconds: {args.seconds:g} is not above 0")
    if args.cap_gib is not None:
        if not (math.isfinite(args.cap_gib) and args.cap_gib > 0):
            raise SpecError(f"--cap-gib: {args.cap_gib:g} is not above 0")
        if visible_device() is None:
            raise SpecError("--cap-gib: this machine shows no CUDA device to cap")
    return Budget(args.steps, args.seconds, args.cap_gib)
