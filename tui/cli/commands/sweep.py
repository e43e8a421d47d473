"""``mla-tui sweep``: queues a run for every combination of values, waits, and writes the best as a user profile."""

from __future__ import annotations

import argparse
import itertools
import shlex
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from profiles.errors import SpecError, UserError
from tui.cli.command_parser import Subparsers, add_command
from tui.cli.progress_line import ProgressLine
from tui.cli.spec_arguments import add_spec_arguments, overrides_of, profile_of
from tui.text import format as fmt

if TYPE_CHECKING:
    from engine.events.run_dir import RunDir
    from engine.events.status import Summary
    from engine.runs.store import RunStore
    from profiles.spec import RunSpec

MOST_RUNS = 64
POLL = 0.5  # seconds
_EXAMPLE = "mla-tui sweep -p cpu_demo -s steps=100 -s optim.lr=1e-3,3e-3"


def register(subparsers: Subparsers) -> None:
    help = "queue a run for each of several values, and compare them"
    parser = add_command(subparsers, "sweep", help, _EXAMPLE)
    add_spec_arguments(parser)
    parser.add_argument("--name", metavar="N", help="of the sweep and the profile it writes (default: PROFILE_sweep)")
    parser.add_argument("--force", action="store_true", help="replace a profile of that name")
    parser.set_defaults(command=run)


def _again(args: argparse.Namespace) -> list[str]:
    """Return the words of the command that goes on with an interrupted sweep."""
    words = ["mla-tui", "sweep", *(["-p", args.profile] if args.profile else [])]
    words += [word for text in args.overrides for word in ("-s", text)]
    for option in ("backend", "name"):
        words += [f"--{option}", value] if (value := getattr(args, option)) else []
    return [*words, *(["--force"] if args.force else [])]


class Cell(NamedTuple):
    """One run of the sweep: its name, and the values in which it differs from the others."""

    name: str
    values: tuple[str, ...]  # key=value, as written
    spec: RunSpec
    keys: dict[str, Any]  # every key that the command line sets


def run(args: argparse.Namespace) -> int:
    from msgspec.structs import replace

    from engine.runs.store import RunStore
    from profiles.user_profile import check_new_profile

    profile = profile_of(args)
    name = args.name or f"{profile.rpartition('/')[2].removesuffix('.toml')}_sweep"
    check_new_profile(name, replace=args.force)
    cells = cells_of(profile, overrides_of(args), name)
    store = RunStore()
    found = [_run_named(store, cell) for cell in cells]  # says of every cell what is wrong before anything starts
    try:
        runs = [_go_on(there) if there else _launch(store, cell) for there, cell in zip(found, cells, strict=True)]
        _wait(runs)
    except KeyboardInterrupt:
        print(f"mla-tui: what is queued goes on; for the table: {shlex.join(_again(args))}", file=sys.stderr)
        return 130
    summaries = [replace(each.summary(), tok_s=_mean_speed(each)) for each in runs]  # a last step says little
    order = sorted(range(len(cells)), key=lambda n: _rank(summaries[n]))
    print("\n".join(table([cells[n] for n in order], [summaries[n] for n in order])))
    best = order[0]
    if _rank(summaries[best])[0]:
        raise UserError(f"sweep: no run has finished; see why with: mla-tui logs {runs[best].id}")
    path = _write_profile(name, profile, cells[best], summaries[best])
    print(f"\nwritten: {path}; compare the runs with: mla-tui compare {' '.join(each.id for each in runs[:8])}")
    return 0


def cells_of(profile: str, overrides: list[str], name: str) -> list[Cell]:
    """Return a cell for every combination of the values that ``overrides`` separate by commas. Raise ``SpecError``."""
    from profiles.registry import load, parse_override

    axes = [_values(text) for text in overrides]
    fixed = [one for axis in axes if len(axis) == 1 for one in axis]
    combinations = list(itertools.product(*(axis for axis in axes if len(axis) > 1)))
    if len(combinations) < 2:
        raise SpecError(f"sweep: nothing to compare; separate values by commas, for example {_EXAMPLE}")
    if len(combinations) > MOST_RUNS:
        raise SpecError(f"sweep: {len(combinations)} runs are more than {MOST_RUNS}; give fewer values")
    cells = []
    for number, values in enumerate(combinations, 1):
        given = [*fixed, *values]
        spec = load(profile, given)
        if not spec.train.val_every:
            raise SpecError("sweep: ranks runs by their validation loss, and train.val_every is 0; set it")
        cells.append(Cell(f"{name}-{number}", values, spec, dict(map(parse_override, given))))
    if len({tuple(cell.keys.items()) for cell in cells if _hashable(cell)}) < sum(map(_hashable, cells)):
        raise SpecError("sweep: a value is there twice; give each once")
    return cells


def _hashable(cell: Cell) -> bool:
    return not any(isinstance(value, dict | list) for value in cell.keys.values())


def _values(text: str) -> list[str]:
    """Return ``key=value`` for every value of ``text``; a TOML list or table is one value."""
    key, _, raw = text.partition("=")
    if raw.lstrip().startswith(("[", "{", '"', "'")):
        return [text]
    return [f"{key}={value.strip()}" for value in raw.split(",")]


def _run_named(store: RunStore, cell: Cell) -> RunDir | None:
    """Return the run of ``cell`` that an interrupted sweep has queued, or None. Raise ``UserError`` for another run.

    It is another one too where profile or data have changed since. What the launch chose for this machine may differ.
    """
    from engine.events.run_dir import RunDir
    from engine.preflight import resolve_spec
    from engine.train.data_check import changed_since

    named = [each for each in map(RunDir, (store.runs / id for id in store.ids())) if each.name == cell.name]
    if not named:
        return None
    stored, wanted = named[-1].spec().to_dict(), resolve_spec(cell.spec)
    for table, fields in wanted.to_dict().items():
        for field, value in fields.items() if isinstance(fields, dict) else ():
            there = stored.get(table, {}).get(field)
            if f"{table}.{field}" not in wanted.resolved and there != value:
                raise UserError(
                    f"sweep: run {cell.name} is there with {table}.{field} = {there}, not {value};"
                    " choose another --name"
                )
    if changed := changed_since(named[-1], wanted):
        raise UserError(f"sweep: run {cell.name} has read other data: since then {changed}; choose another --name")
    return named[-1]


def _go_on(run: RunDir) -> RunDir:
    """Give ``run`` a supervisor, if a sweep was interrupted before it had one."""
    from engine.runs.supervision import ensure_supervisor

    ensure_supervisor(run)
    return run


def _launch(store: RunStore, cell: Cell) -> RunDir:
    from engine.runs.launch import launch

    notes = lambda line: print(f"mla-tui: {cell.name}: {line}", file=sys.stderr)  # noqa: E731
    return launch(store, cell.spec, name=cell.name, queue=True, notify=notes)


def _wait(runs: list[RunDir]) -> None:
    """Wait until no run is active, and show how far they are."""
    from engine.events.phases import is_active

    line = ProgressLine()
    while active := [summary for summary in (each.summary() for each in runs) if is_active(summary.phase)]:
        if line.due():
            done = len(runs) - len(active)
            parts = sum((one.step or 0) / one.steps for one in active if one.steps)
            line.bar((done + parts) / len(runs), progress_text(len(runs), active))
        time.sleep(POLL)
    line.clear()


def progress_text(runs: int, active: list[Summary]) -> str:
    """Return how many of ``runs`` have ended, and what the one that is furthest does or waits for."""
    now = max(active, key=lambda one: one.step or 0)
    does = f"step {now.step or 0} of {now.steps}"
    if now.phase != "running" and now.reason:
        does = f"{now.phase}: {now.reason}"
    return f"{runs - len(active)} of {runs} runs ended; {now.name or now.id}: {does}"


def _rank(summary: Summary) -> tuple[bool, float]:
    """Return the key by which runs are sorted: finished ones by validation loss, then the others."""
    finished = summary.phase == "finished" and summary.val_loss is not None
    return not finished, summary.val_loss if finished and summary.val_loss is not None else 0.0


def _mean_speed(run: RunDir) -> float | None:
    """Return the tokens/s of a run, the mean of its steps, as ``compare`` does."""
    from engine.events.log_index import LogIndex

    index = LogIndex(run)
    index.catch_up()
    index.close()
    return index.history.series["tok_s"].mean()


def table(cells: list[Cell], summaries: list[Summary]) -> list[str]:
    """Return the lines of the table, with the runs in the order given."""
    rows = [("run", "values", "val loss", "bits/byte", "tok/s", "")]
    for cell, found in zip(cells, summaries, strict=True):
        numbers = (fmt.loss(found.val_loss), fmt.loss(found.bits_per_byte), fmt.count(found.tok_s))
        why = "" if found.phase == "finished" else " ".join(filter(None, (found.phase, found.reason)))
        rows.append((cell.name, " ".join(cell.values), *numbers, why))
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    return [
        "  ".join(
            text.ljust(width) if column in (0, 1, 5) else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _write_profile(name: str, profile: str, cell: Cell, summary: Summary) -> str:
    from pathlib import Path

    from profiles.user_profile import profile_text, write_profile

    base = str(Path(profile).resolve()) if profile.endswith(".toml") else profile
    comments = [
        f"Best of a sweep by mla-tui, {time.strftime('%Y-%m-%d')}: {' '.join(cell.values)};",
        f"validation loss {fmt.loss(summary.val_loss)} after {summary.steps} steps.",
    ]
    text = profile_text(comments, f"{cell.spec.profile}, the best of a sweep", base, cell.keys)
    return str(write_profile(text, name, replace=True))
