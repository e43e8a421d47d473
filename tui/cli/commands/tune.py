"""``mla-tui tune``: measures the few best ways to run a profile here, and writes the best as a user profile."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiles.errors import SpecError, UserError
from tui.cli.command_parser import Subparsers, add_command
from tui.cli.progress_line import ProgressLine
from tui.cli.spec_arguments import add_spec_arguments, overrides_of, profile_of
from tui.text.format import count, duration, size
from tui.text.way_table import describe

if TYPE_CHECKING:
    from engine.memory.hardware import Hardware
    from engine.memory.search.search import Candidate
    from engine.train.measure.grid import Cell
    from engine.train.measure.tune import Tuning, Winner
    from engine.train.measure.tune_journal import Measurement
    from profiles.spec import RunSpec

_MOST_WAYS = 32
_NO_PEAK = 1.0  # FLOP/s of matrix products: to measure it takes seconds, and tokens/s do not depend on it


def register(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "tune", "measure the best ways to run a profile here", "mla-tui tune -p cpu_demo")
    add_spec_arguments(parser)
    parser.add_argument("--name", metavar="N", help="the name of the new profile (default: that of -p and _tuned)")
    parser.add_argument("--force", action="store_true", help="replace a profile of that name")
    parser.add_argument("--ways", type=int, default=6, metavar="N", help="measure at most this many (default 6)")
    parser.add_argument(
        "--seconds", type=float, default=10.0, metavar="S", help="time the steps of each for this long (default 10)"
    )
    parser.add_argument("--synthetic", action="store_true", help="use random tokens even if there are shards")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    from engine.memory.calibration import load_past_runs
    from engine.memory.hardware import detect_hardware
    from engine.memory.search.search import Search
    from engine.memory.search.shortlist import shortlist
    from engine.runs.store import RunStore
    from engine.train.measure.tune import Tuning
    from engine.train.measure.tune_journal import TuneJournal
    from profiles import registry
    from profiles.user_profile import check_new_profile

    _check_numbers(args)
    profile, overrides, home = profile_of(args), overrides_of(args), RunStore().home
    spec = registry.load(profile, overrides)
    name = args.name or f"{spec.profile}_tuned"
    if name == spec.profile:
        raise SpecError(f"--name {name}: is the profile to tune; choose another name")
    check_new_profile(name, replace=args.force)
    hardware = detect_hardware(spec.launch.gpus_per_node)
    search, given = Search(hardware, load_past_runs(hardware, home)), dict(map(registry.parse_override, overrides))
    journal = TuneJournal(home, spec, hardware, f"{args.ways} {args.seconds:g} {args.synthetic} {sorted(given)}")
    ways = journal.ways(spec, search) or shortlist(spec, search, args.ways, given)
    _check_fits(spec, ways, hardware)
    cells = [_cell(profile, overrides, spec, way, args.synthetic) for way in ways]
    journal.begin(ways)
    with _locked_devices(cells[0].spec, home) as hold:
        report = _Report(ways, args.seconds, hold)
        tuning = Tuning(cells, hardware, home, journal, report.measuring(cells))
        report.begin(spec, tuning)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # says what is kept, and leaves no process behind
        try:
            _measure(tuning, report)
        except KeyboardInterrupt:
            report.line.clear()
            again = shlex.join(_again(args))
            print(f"mla-tui: stopped; what is measured is kept, go on with: {again}", file=sys.stderr)
            return 130
    winner = tuning.winner()
    if winner is None:
        raise UserError(f"tune: none of {len(cells)} ways could run here; {tuning.found(0).error}")
    path = _write(name, profile, overrides, spec, ways, winner, hardware)
    journal.remove()
    print(f"\n{report.verdict(winner)}\nwritten: {path}; start it with: mla-tui launch -p {shlex.quote(name)}")
    return 0


def _measure(tuning: Tuning, report: _Report) -> None:
    """Measure every way that is left, then pairs until they decide."""
    left = tuning.left
    for number in range(len(tuning.cells)):
        report.way(number, tuning.measure_way(number) if number in left else tuning.found(number), number in left)
    while tuning.needs_pair:
        number = len(tuning.pairs()) + 1
        report.pair = f"pair {number}, "
        report.show_pair(number, tuning.measure_pair().ratio)


class _Report:
    """Prints what is measured as it is: lines on stdout, a progress line on stderr."""

    def __init__(self, ways: list[Candidate], seconds: float, every_second: Callable[[], object]) -> None:
        """``every_second`` is called while something is measured."""
        self.line = ProgressLine()
        self.pair = ""
        self._ways, self._seconds, self._every_second = ways, seconds, every_second
        self._width = max(len(describe(way)) for way in ways)

    def measuring(self, cells: list[Cell]) -> Callable[[int], Mapping[str, Any]]:
        """Return what measures one of ``cells``."""
        from engine.train.measure import grid

        def measure(number: int) -> Mapping[str, Any]:
            if self._ways[number].state == "over":
                return {"error": "does not fit into what is free"}
            step = cells[number].spec.tokens_per_step / self._ways[number].rate.tok_s
            steps = 1 if step > self._seconds else None
            budget = grid.Budget(steps, self._seconds, peak=_NO_PEAK)
            return grid.measure_cell(cells[number], budget, lambda elapsed: self._tick(number, elapsed))

        return measure

    def begin(self, spec: RunSpec, tuning: Tuning) -> None:
        data = "" if tuning.cells[0].data == "shards" else ", on random tokens"
        kept = len(tuning.cells) - len(tuning.left)
        ways = f"{len(self._ways)} way{'s' if len(self._ways) > 1 else ''}"
        print(f"{spec.profile}: {ways}, {self._seconds:g} s of steps each{data}")
        if kept:
            print(f"going on: {kept} of them were measured before it was interrupted")

    def _tick(self, number: int, elapsed: float) -> None:
        self._every_second()
        text = f"{self.pair}{describe(self._ways[number])}, {duration(elapsed)}"
        if self.line.due():
            self.line.bar(number / len(self._ways) if not self.pair else 1.0, text)

    def way(self, number: int, found: Measurement, new: bool) -> None:
        self.line.clear()
        peak = found.device_peak or found.host_peak
        result = found.error or f"{count(found.tok_s):>6} tok/s  {size(peak) if peak else '':>8}"
        notes = [] if new else ["kept"]
        notes += ["the profile's own"] if number == 0 else []
        text = f"{describe(self._ways[number]):<{self._width}}  {result}"
        print(f"  {text}{'  ' + ', '.join(notes) if notes else ''}".rstrip(), flush=True)

    def show_pair(self, number: int, ratio: float) -> None:
        self.line.clear()
        found = f"{ratio:.3f} × as fast as the profile's own" if ratio else "could not be measured"
        print(f"  pair {number}: the best is {found}", flush=True)

    def verdict(self, winner: Winner) -> str:
        found = f"{describe(self._ways[winner.number])}: {count(winner.tok_s)} tokens/s, {_comparison(winner)}"
        if winner.faster is None:
            return found
        return f"{found}\nabout as fast, with less precision: {describe(self._ways[winner.faster])}"


def _comparison(winner: Winner) -> str:
    """Return how the winner compares with the profile's own way."""
    ratios = winner.ratios
    if winner.number == 0:
        return "the profile's own way" + (", which the best other did not beat in pairs" if ratios else "")
    if not ratios:
        return "the profile's own way could not run"
    return f"{sorted(ratios)[len(ratios) // 2]:.2f} × the profile's own way in {len(ratios)} pairs"


def _cell(profile: str, overrides: list[str], spec: RunSpec, way: Candidate, synthetic: bool) -> Cell:
    from engine.memory.proposed_profile import way_keys
    from engine.train.measure.grid import build_cell

    # A profile that says accum would have another batch with another micro.
    keys = {"batch.sequences": spec.batch.sequences, **way_keys(way)}
    return build_cell(profile, overrides, {key: str(value) for key, value in keys.items()}, synthetic)


def _write(
    name: str,
    profile: str,
    overrides: list[str],
    spec: RunSpec,
    ways: list[Candidate],
    winner: Winner,
    hardware: Hardware,
) -> Path:
    """Write the winner with what ``overrides`` set, and return its file."""
    from engine.memory.proposed_profile import way_keys
    from profiles.registry import parse_override
    from profiles.user_profile import profile_text, write_profile

    way = ways[winner.number]
    given = dict(parse_override(text) for text in overrides)
    given.pop("batch.accum", None)
    numerics = way.combination.numerics
    comments = [
        f"Measured by mla-tui tune on {hardware.name}, {time.strftime('%Y-%m-%d')}:",
        f"{winner.tok_s:.0f} tokens/s, {_comparison(winner)}; the best of {len(ways)} ways.",
        *([f"Its cost in numerics: {', '.join(numerics)}."] if numerics else []),
    ]
    keys = {**given, "batch.sequences": spec.batch.sequences, **way_keys(way)}
    base = str(Path(profile).resolve()) if profile.endswith(".toml") else profile
    return write_profile(profile_text(comments, f"{spec.profile}, tuned here", base, keys), name, replace=True)


def _check_numbers(args: argparse.Namespace) -> None:
    if not 1 <= args.ways <= _MOST_WAYS:
        raise SpecError(f"--ways: {args.ways} is not in 1..{_MOST_WAYS}")
    if not (math.isfinite(args.seconds) and args.seconds > 0):
        raise SpecError(f"--seconds: {args.seconds:g} must be above 0")


def _check_fits(spec: RunSpec, ways: list[Candidate], hardware: Hardware) -> None:
    """Raise ``UserError`` where nothing can be measured."""
    from engine.memory.launch_fit import launch_fit

    if not ways:
        raise SpecError(
            f"tune: launch.backend = {spec.launch.backend} cannot run train.precision = {spec.train.precision};"
            " use --backend torch, or -s train.precision=auto"
        )
    if all(way.state == "over" for way in ways):
        raise UserError(f"tune: nothing fits: {launch_fit(ways[0].spec, hardware, []).text}")


@contextlib.contextmanager
def _locked_devices(spec: RunSpec, home: Path) -> Iterator[Callable[[], None]]:
    """Lock the devices of ``spec``; yields what has to be called every second, in case a lock file is deleted.

    Raise ``UserError`` where another uses one of them: neither would be as fast as it is alone.
    """
    from engine.host.process import process_identity
    from engine.runs.device_locks import TUNE, DeviceLocks, described, devices_of, run_beside, tune_name

    devices, user = devices_of(spec), tune_name(process_identity(os.getpid()))
    locks = DeviceLocks(home, devices)
    try:
        in_use = locks.acquire(user) or run_beside(home, devices)
    except OSError as error:
        raise UserError(f"{home / 'devices'}: {error.strerror}; make it writable, or set MLA_TUI_HOME") from None
    try:
        if in_use:
            device, other = in_use
            stop = "Ctrl-C in its terminal" if other.startswith(TUNE) else f"mla-tui stop {shlex.quote(other)}"
            raise UserError(
                f"{device}: is in use by {described(other)}, and beside it no speed can be measured; wait until it"
                f" ends, or stop it with: {stop}"
            )
        yield lambda: locks.hold(user)
    finally:
        locks.release()


def _again(args: argparse.Namespace) -> list[str]:
    words = ["mla-tui", "tune"]
    words += ["-p", args.profile] if args.profile else []
    words += [word for text in args.overrides for word in ("-s", text)]
    words += ["--backend", args.backend] if args.backend else []
    words += ["--name", args.name] if args.name else []
    words += ["--ways", str(args.ways)] if args.ways != 6 else []
    words += ["--seconds", f"{args.seconds:g}"] if args.seconds != 10 else []
    words += ["--synthetic"] if args.synthetic else []
    return [*words, *(["--force"] if args.force else [])]
