"""Measures a few ways to run a spec, finds the best, and calibrates forecast and speed with what was measured.

Each way is measured once, in a process of its own. The best is the fastest, or one about as fast that keeps more
precision, as in the search. It then has to win several pairs against the spec's own way, because the speed of a machine
changes from minute to minute by more than two ways may differ.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.memory.calibration import MeasuredPeak, record_run, record_speed, speed_key
from engine.memory.hardware import Hardware
from engine.memory.search.combinations import current
from engine.memory.search.search import preferred
from engine.memory.search.speed import step_seconds
from engine.train.measure.grid import Cell
from engine.train.measure.tune_journal import Measurement, Pair, TuneJournal

PAIRS = 3


@dataclass(frozen=True, slots=True)
class Winner:
    """The number of the best way, its tokens/s (median), and the speed of what was compared with the spec's own way,
    relative to that, in each pair.

    ``ratios`` is empty where nothing was compared: the first is the best, or could not run. ``faster``: the way that
    was a little faster when each was measured once, with less precision.
    """

    number: int
    tok_s: float
    ratios: list[float]
    faster: int | None = None


@dataclass(frozen=True, slots=True)
class Tuning:
    """``cells`` are the ways to measure, the spec's own first; ``measure`` measures one (``grid.measure_cell``)."""

    cells: Sequence[Cell]
    hardware: Hardware
    home: Path
    journal: TuneJournal
    measure: Callable[[int], Mapping[str, Any]]

    @property
    def left(self) -> list[int]:
        """The numbers of the ways that are not measured yet."""
        return [n for n, cell in enumerate(self.cells) if speed_key(cell.spec) not in self.journal.measured.ways]

    def measure_way(self, number: int) -> Measurement:
        """Measure one way, keep the result and calibrate with it. Running out of memory is a result."""
        found = self._measured(number)
        self.journal.add(self._key(number), found)
        self._calibrate(number, found)
        return found

    def found(self, number: int) -> Measurement:
        """Return what was measured of a way."""
        return self.journal.measured.ways[self._key(number)]

    @property
    def best(self) -> int | None:
        """The number of the best way of one measurement each; None where none could run."""
        ran = self._ran()
        return self._preferred({n: self.found(n).tok_s for n in ran}) if ran else None

    def pairs(self) -> list[Pair]:
        """Return the pairs of the best way against the first so far."""
        best = self.best
        key = "" if best is None else self._key(best)
        return [pair for pair in self.journal.measured.pairs if pair.best == key]

    @property
    def needs_pair(self) -> bool:
        """Whether another pair has to decide: not where the best is the first, or the first has won one."""
        if self.best in (None, 0) or self.found(0).error:
            return False
        return len(self.pairs()) < PAIRS and self._won_every_pair()

    def measure_pair(self) -> Pair:
        """Measure the first way, then the best. Only both together are kept."""
        best = self.best
        assert best is not None
        pair = Pair(self._key(best), self._measured(0), self._measured(best))
        self.journal.add_pair(pair)
        return pair

    def winner(self) -> Winner | None:
        """Return the best way if it won every pair, else the first; None where no way could run."""
        best = self.best
        if best is None:
            return None
        number = best if self._won_every_pair() else 0
        fastest = max(self._ran(), key=lambda n: self.found(n).tok_s)
        faster = fastest if self._lowered(fastest) > self._lowered(best) else None
        return Winner(number, self._settle(number), [pair.ratio for pair in self.pairs()], faster)

    def _ran(self) -> list[int]:
        return [n for n in range(len(self.cells)) if not self.found(n).error]

    def _won_every_pair(self) -> bool:
        best = self.best or 0
        return all(
            pair.ratio and self._preferred({0: pair.own.tok_s, best: pair.other.tok_s}) == best for pair in self.pairs()
        )

    def _preferred(self, speeds: Mapping[int, float]) -> int:
        return preferred([*speeds], speeds.__getitem__, lambda n: (self._lowered(n),))

    def _lowered(self, number: int) -> int:
        return current(self.cells[number].spec, self.hardware).lowered

    def _settle(self, number: int) -> float:
        """Calibrate with the medians of all that was measured of the first way and the best; return that of one."""
        medians: dict[int, float] = {}
        for n in {0, number, self.best or 0}:
            again = [pair.own if n == 0 else pair.other for pair in self.pairs()]
            speeds = [one.tok_s for one in [self.found(n), *again] if not one.error]
            if speeds:
                medians[n] = statistics.median(speeds)
                self._record_speed(n, medians[n])
        return medians[number]

    def _measured(self, number: int) -> Measurement:
        answer = self.measure(number)
        if "error" in answer:
            return Measurement(error=str(answer["error"]))
        peak = answer["peak"]
        return Measurement(float(answer["tok_s"]), peak["device"], peak["process"])

    def _calibrate(self, number: int, found: Measurement) -> None:
        if found.error:
            return
        peak = MeasuredPeak(found.device_peak, found.host_peak)
        record_run(self.cells[number].spec, self.hardware, peak, run=self._name(number), home=self.home)
        self._record_speed(number, found.tok_s)

    def _record_speed(self, number: int, tok_s: float) -> None:
        spec = self.cells[number].spec
        predicted = spec.tokens_per_step / step_seconds(spec, self.hardware)[0]
        record_speed(spec, self.hardware, predicted, tok_s, run=self._name(number), home=self.home)

    def _name(self, number: int) -> str:
        return f"tune {self._key(number)}"

    def _key(self, number: int) -> str:
        return speed_key(self.cells[number].spec)
