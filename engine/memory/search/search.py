"""Searches every way to run a spec on a machine: strategy × checkpointing × precision × micro-batch together.

Each combination gets the largest micro-batch that leaves room to spare; what fits is ranked by predicted tokens per
second. Needs no torch, and some tens of milliseconds: the memory forecast is its inner loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from engine.memory.calibration import PastRun, calibrated_forecaster
from engine.memory.forecast import Forecast
from engine.memory.hardware import Hardware
from engine.memory.headroom import FITS, OVER, TIGHT, fits_comfortably, headroom_by_memory
from engine.memory.search.combinations import Combination, combinations, forbidden
from engine.memory.search.micro import largest, micro_divisors, with_micro
from engine.memory.search.speed import Rate, SpeedModel
from profiles.spec import RunSpec

Way = TypeVar("Way")
GIB = 1 << 30
SAME_SPEED = 0.99  # of the fastest: neither predictions nor measurements are better than that, so the cost decides


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to run a spec: ``spec`` has everything chosen. ``state`` is FITS, TIGHT or OVER.

    ``forbidden`` says why "auto" does not choose it, empty where it may.
    """

    spec: RunSpec
    combination: Combination
    forecast: Forecast
    rate: Rate
    state: str
    forbidden: str

    @property
    def memory(self) -> int:
        return self.forecast.device_total + self.forecast.host_total


class Search:
    """Ways to run specs on ``hardware``; ``past_runs`` correct forecasts and speeds."""

    def __init__(self, hardware: Hardware, past_runs: Sequence[PastRun] = ()) -> None:
        self.hardware = hardware
        self.forecast = calibrated_forecaster(past_runs)
        self.speed = SpeedModel(hardware, past_runs)

    def chosen_from(self, spec: RunSpec) -> list[Candidate]:
        """Return the ways that differ only in what ``spec`` leaves open ("auto"), best first.

        So the first is what "auto" means here. Empty where the spec contradicts itself.
        """
        found = [self._best_micro(spec, one, spec.auto_micro) for one in combinations(spec, self.hardware, fixed=True)]
        return self.rank(found)

    def all_ways(self, spec: RunSpec) -> list[Candidate]:
        """Return every way to run ``spec`` with the same steps, best first, whatever it says about memory itself."""
        return self.rank([self._best_micro(spec, one, True) for one in combinations(spec, self.hardware, fixed=False)])

    def candidate(self, spec: RunSpec, combination: Combination) -> Candidate:
        """Return ``spec`` run as ``combination``, at its own micro-batch."""
        plain = replace(combination.of(spec), auto_micro=False)
        forecast = self.forecast(plain, self.hardware)
        state = OVER if not forecast.fits(self.hardware) else TIGHT
        if state == TIGHT and fits_comfortably(forecast, self.hardware):
            state = FITS
        return Candidate(plain, combination, forecast, self.speed.of(plain), state, forbidden(combination, spec))

    def _best_micro(self, spec: RunSpec, combination: Combination, free: bool) -> Candidate:
        """Return the candidate at the largest micro-batch with room to spare, else that fits, else the smallest."""
        if not free:
            return self.candidate(spec, combination)
        plain = replace(combination.of(spec), auto_micro=False)
        forecasts: dict[int, Forecast] = {}

        def at(micro: int) -> Forecast:
            if micro not in forecasts:
                forecasts[micro] = self.forecast(with_micro(plain, micro), self.hardware)
            return forecasts[micro]

        micros = micro_divisors(spec)
        micro = largest(micros, lambda n: fits_comfortably(at(n), self.hardware))
        if micro is None:
            micro = largest(micros, lambda n: at(n).fits(self.hardware))
        return self.candidate(with_micro(spec, micro or 1), combination)

    def _shortage(self, one: Candidate) -> float:
        """Return how many times more than what is free ``one`` needs, of the memory that lacks most."""
        memories = headroom_by_memory(one.forecast, self.hardware)
        return max(memory.needed / max(memory.free, 1) for memory in memories if memory.free is not None)

    def rank(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Return ``candidates``, the best first: what may be chosen and fits well, by speed.

        Of those about as fast as the fastest, the one with the least cost in numerics comes first, then the smallest.
        Where nothing fits, what lacks least comes first.
        """
        best: list[Candidate] = []
        for allowed in (True, False):
            for state in (FITS, TIGHT, OVER):
                group = [one for one in candidates if (not one.forbidden) == allowed and one.state == state]
                if state == OVER:
                    group.sort(key=self._shortage)
                else:
                    group.sort(key=lambda one: (-one.rate.tok_s, one.combination.lowered, one.memory))
                    if group:
                        first = preferred(
                            group,
                            speed=lambda one: one.rate.tok_s,
                            cost=lambda one: (one.combination.lowered, one.memory),
                        )
                        group = [first, *(one for one in group if one is not first)]
                best += group
        return best


def preferred(ways: Sequence[Way], speed: Callable[[Way], float], cost: Callable[[Way], tuple[int, ...]]) -> Way:
    """Return the way of the least ``cost`` among those about as fast as the fastest; of equal cost the fastest.

    ``cost`` begins with what it lowers the precision of. Of equals the first is returned.
    """
    slowest = SAME_SPEED * max(map(speed, ways))
    return min((way for way in ways if speed(way) >= slowest), key=lambda way: (cost(way), -speed(way)))


def why_it_lost(candidate: Candidate, best: Candidate, hardware: Hardware) -> str:
    """Return why ``candidate`` is not the ``best``."""
    if candidate.state == OVER:
        short = max(
            (one for one in headroom_by_memory(candidate.forecast, hardware) if one.free is not None),
            key=lambda one: one.needed - (one.free or 0),
        )
        return f"does not fit: {short.needed / GIB:.1f} of {(short.free or 0) / GIB:.1f} GiB {short.memory}"
    if candidate.forbidden:
        return candidate.forbidden
    if candidate.state == TIGHT and best.state == FITS:
        return "fits without room to spare"
    slower = 1 - candidate.rate.tok_s / best.rate.tok_s
    if slower > 1 - SAME_SPEED:
        return f"{slower:.0%} slower"
    if candidate.combination.lowered > best.combination.lowered:
        return "as fast, with less precision"
    return "as fast, with more memory" if candidate.memory > best.memory else "as fast"
