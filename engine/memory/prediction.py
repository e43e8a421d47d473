"""Predicts everything about a spec on a machine: the choice, memory, speed, cost, and changes to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.memory.calibration import CalibratedForecast, PastRun, calibrate
from engine.memory.expectation import elsewhere
from engine.memory.hardware import Hardware
from engine.memory.headroom import Headroom, headroom_by_memory
from engine.memory.launch_fit import launch_fit
from engine.memory.run_cost import RunCost, run_cost
from engine.memory.search.choose import choose, open_keys
from engine.memory.search.levers import Lever, levers
from engine.memory.search.search import Search
from profiles.spec import RunSpec


@dataclass(frozen=True, slots=True)
class Prediction:
    """``spec`` has everything chosen, ``open`` are the keys that were not.

    ``fit`` is what a launch would say about memory, ``elsewhere`` what the profile expects and this machine lacks.
    """

    spec: RunSpec
    open: list[str]
    calibrated: CalibratedForecast
    headrooms: list[Headroom]
    fit: str
    cost: RunCost
    levers: list[Lever]
    elsewhere: str


def predict(spec: RunSpec, hardware: Hardware, past_runs: Sequence[PastRun], *, here: bool = True) -> Prediction:
    """Return the prediction for ``spec`` on ``hardware``, which is this machine's if ``here``."""
    chosen = choose(spec, hardware, past_runs)
    found = calibrate(chosen, hardware, past_runs)
    return Prediction(
        chosen,
        open_keys(spec),
        found,
        headroom_by_memory(found.forecast, hardware),
        launch_fit(chosen, hardware, past_runs).text,
        run_cost(chosen, Search(hardware, past_runs).speed.of(chosen), here=here),
        levers(chosen, hardware, past_runs),
        elsewhere(spec, hardware, past_runs),
    )
