"""``mla-tui bench``: measures the training throughput of a spec, or of each spec of a grid."""

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
from profiles.printable import one_line
from tui.cli.command_parser import Subparsers, add_command
from tui.cli.spec_arguments import add_spec_arguments, overrides_of, profile_of
from tui.cli.terminal_output import unfiltered
from tui.text.format import count, duration, flop_s, size

if TYPE_CHECKING:
    from engine.train.measure.grid import Budget, Cell

SECONDS = 20.0
PARTS = ("data", "forward", "backward", "optimizer")
HEAD = f"{'tok/s':>6} {'step':>8} {'data':>4} {'fwd':>4} {'bwd':>4} {'opt':>4} {'memory':>8} {'util':>5}"
WIDTH = 79
MAX_LABEL = WIDTH - len(HEAD) - 1
BAR_WIDTH = 20


def register(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "bench", "measure training throughput", "mla-tui bench --grid micro=4,8")
    add_spec_arguments(parser)
    parser.add_argument(
        "--grid",
        action="append",
        default=[],
        metavar="K=V,V",
        help="measure every combination of these, e.g. micro=4,8",
    )
    parser.add_argument("--steps", type=int, metavar="N", help="time this many steps, instead of --seconds")
    parser.add_argument("--seconds", type=float, metavar="S", help=f"time steps for this long (default {SECONDS:g})")
    parser.add_argument("--cap-gib", type=float, metavar="G", help="limit the device memory to this much")
    parser.add_argument("--synthetic", action="store_true", help="use random tokens even if there are shards")
    parser.add_argument("--json", action="store_true", help="print JSON, a list of measurements")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    from engine.train.measure import grid

    budget = _budget(args)
    cells = grid.grid_cells(profile_of(args), overrides_of(args), args.grid, args.synthetic)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # print the results so far, and leave no process behind
    results: list[dict[str, Any]] = []
    interrupted = False
    try:
        for number, cell in enumerate(cells):
            results.append(grid.measure_cell(cell, budget, ProgressBar(number, cells)))
    except KeyboardInterrupt:
        interrupted = True
    finally:
        ProgressBar.clear()
    if args.json:
        print(json.dumps(results, indent=1))
    elif results:
        print("\n".join(table(results)))
    if interrupted:
        print(f"mla-tui: stopped; {len(results)} of {len(cells)} measured", file=sys.stderr)
        return 130
    return 0 if any("error" not in result for result in results) else 1


class ProgressBar:
    """Shows on stderr which cell is being measured, if stderr is a terminal."""

    def __init__(self, number: int, cells: list[Cell]) -> None:
        self.number, self.count = number, len(cells)
        self.label = _label(cells[number].changes)
        self(0.0)

    def __call__(self, elapsed: float) -> None:
        if sys.stderr.isatty():
            filled = BAR_WIDTH * self.number // self.count
            bar = f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {self.number + 1} of {self.count}, {duration(elapsed)}"
            text = one_line(f"{bar}  {self.label}")[:WIDTH]
            print(f"\r\x1b[K{text}", end="", file=unfiltered(sys.stderr), flush=True)

    @staticmethod
    def clear() -> None:
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=unfiltered(sys.stderr), flush=True)


def table(results: list[dict[str, Any]]) -> list[str]:
    """Return the results as lines of 79 columns: column names, one line per cell, notes on the columns."""
    rows = [[key.rpartition(".")[2] for key in results[0]["changes"]] or ["model"]]
    rows += [list(result["changes"].values()) or [result["model"]] for result in results]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    names, *labels = [" ".join(map(str.ljust, row, widths)) for row in rows]
    beside = len(names) <= MAX_LABEL  # else the label has its own line, above the numbers
    lines = [f"{names} {HEAD}"] if beside else [names.rstrip(), f"  {HEAD}"]
    for label, result in zip(labels, results, strict=True):
        start = f"{label} " if beside else "  "
        lines += [] if beside else [label.rstrip()]
        lines.append(f"{start}{_numbers(result, WIDTH - len(start))}")
    notes = _notes([result for result in results if "error" not in result])
    return [*lines, "", *(line for note in notes for line in textwrap.wrap(note, WIDTH, subsequent_indent="  "))]


def _numbers(result: dict[str, Any], width: int) -> str:
    if "error" in result:
        error = result["error"]
        return error if len(error) <= width else f"{error[: width - 1]}…"
    split, step_s = result["split_s"], result["step_s"]["median"]
    fractions = " ".join(f"{split[part] / sum(split.values()):>4.0%}" for part in PARTS)
    step = f"{1000 * step_s:.0f} ms" if step_s < 10 else duration(step_s)
    memory = size(_peak(result["peak"]))
    return f"{count(result['tok_s']):>6} {step:>8} {fractions} {memory:>8} {result['matmul_peak_fraction']:>5.0%}"


def _notes(results: list[dict[str, Any]]) -> list[str]:
    """Return what the columns mean, and the model, device and data of the measurement."""
    if not results:
        return ["nothing was measured"]
    from engine.train.measure.grid import SYNTHETIC, WARMUP_STEPS

    first = results[0]
    on_device = sorted({result["peak"]["device"] is not None for result in results}, reverse=True)
    where = first["device_name"] if on_device == [True] else f"{first['device_name']}, {first['threads']} threads"
    memory = {True: "peak allocated on the device", False: "peak RAM, without what torch itself uses"}
    versions = {f"{name} {version}" for result in results for name, version in result["versions"].items()}
    together = "; mlx computes fwd with bwd" if any("mlx" in result["versions"] for result in results) else ""
    libraries = sorted(text for text in versions if not text.startswith(("mla-tui ", "numpy ")))
    data = "random tokens" if first["data"] == SYNTHETIC else "shards"
    slowest = max(result["step_s"]["max"] / result["step_s"]["median"] for result in results)
    warmup = max(result["warmup_s"] for result in results)
    return [
        f"{first['model']}, {count(first['params'])} parameters; {where}; {', '.join(libraries)}; data: {data}",
        f"step: the median of {_range(result['step_s']['steps'] for result in results)}, at most {slowest:.2f} times"
        f" the median; after {WARMUP_STEPS} warm-up steps with compilation, which took up to {duration(warmup)}",
        f"data, fwd, bwd, opt: fractions of the step time, from extra steps that synchronize after each part{together}",
        f"memory: {' or '.join(memory[one] for one in on_device)}",
        f"util: fraction of the matmul peak, measured here with the model's shapes:"
        f" {_range((result['matmul_peak_flop_s'] for result in results), flop_s)}"
        f" in {', '.join(sorted({result['plan']['precision'] for result in results}))}",
    ]


def _range(values: Iterable[float], form: Callable[[float], str] = str) -> str:
    """Return the lowest and the highest value as text, or the only one."""
    known = list(values)
    low, high = form(min(known)), form(max(known))
    return low if low == high else f"{low} to {high}"


def _peak(peak: dict[str, int | None]) -> int | None:
    return peak["host"] if peak["device"] is None else peak["device"]


def _label(changes: dict[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in changes.items())


def _budget(args: argparse.Namespace) -> Budget:
    """Return how long to measure, and in how much memory. Raises ``SpecError``."""
    from engine.train.measure.grid import Budget
    from profiles.nvml import visible_device

    if args.steps is not None and args.steps < 1:
        raise SpecError(f"--steps: {args.steps} must be at least 1")
    if args.steps is not None and args.seconds is not None:
        raise SpecError("--steps and --seconds: give only one; both say how long a measurement takes")
    seconds = SECONDS if args.seconds is None else args.seconds
    if not (math.isfinite(seconds) and seconds > 0):
        raise SpecError(f"--seconds: {seconds:g} must be above 0")
    if args.cap_gib is not None:
        if not (math.isfinite(args.cap_gib) and args.cap_gib > 0):
            raise SpecError(f"--cap-gib: {args.cap_gib:g} must be above 0")
        if visible_device() is None:
            raise SpecError("--cap-gib: no CUDA device is visible here")
    return Budget(args.steps, seconds, args.cap_gib)
