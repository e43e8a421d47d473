"""What runs on this machine really peaked at, and the forecast corrected by it.

``$MLA_TUI_HOME/calibration.json`` holds, by host and device, one line a run: what was told and what was measured. A
forecast is multiplied by the median ratio of the runs that resemble it: by the same backend, and not more than twice as
large or small, for what a small run gets wrong says nothing about a large one. Where there are none it stays as it is.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.host.files import read_json, write_json
from engine.host.process import Lock
from engine.memory.forecast import ALLOCATED_NOT, Forecast, Forecaster, forecast
from engine.memory.hardware import Hardware
from profiles.spec import RunSpec

NAME = "calibration.json"
FORMAT = 1
MOST = 64  # runs remembered for one device; the oldest go first
ALIKE = 2.0  # how many times larger or smaller a run may be
PLAUSIBLE = (0.5, 2.0)  # a ratio outside is a run that did not get far, or another program's memory
PLACES = ("device", "host")


@dataclass(frozen=True, slots=True)
class Measured:
    """What one run peaked at, in bytes; None where it is not known.

    ``device``: the most that was allocated (the ``device_peak`` of step records). ``host``: the most that one of its
    processes was resident with (``rss`` of telemetry).
    """

    device: int | None = None
    host: int | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One remembered run."""

    name: str
    backend: str
    told: Mapping[str, int]  # by place
    measured: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Factor:
    """What to multiply a forecast by, and from how many runs that comes."""

    ratio: float
    runs: int


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A forecast as this machine's runs correct it; ``device`` and ``host`` are None where none resembles it."""

    forecast: Forecast
    device: Factor | None
    host: Factor | None

    @property
    def words(self) -> str:
        """For a person: ``device ×1.04 by 3 runs on this machine``; empty where nothing is known."""
        said = [
            f"{place} ×{factor.ratio:.2f} by {factor.runs} run{'s' if factor.runs > 1 else ''}"
            for place, factor in (("device", self.device), ("host", self.host))
            if factor
        ]
        return f"calibrated: {', '.join(said)} on this machine" if said else ""


def observe(spec: RunSpec, hardware: Hardware, measured: Measured, *, run: str, home: Path) -> bool:
    """Remember what the run named ``run`` peaked at; called again for the same run it replaces what stood there.

    Returns whether it was kept: not where nothing plausible was measured. Raises ``OSError`` where ``home`` cannot be
    written.
    """
    told = comparable(spec, forecast(spec, hardware))
    seen = {place: value for place in PLACES if (value := getattr(measured, place)) and told[place]}
    seen = {place: value for place, value in seen.items() if _plausible(value / told[place])}
    if not seen:
        return False
    home.mkdir(parents=True, exist_ok=True)
    lock = Lock(home / f".{NAME}.lock")
    lock.acquire(timeout=5.0)
    try:
        content = _content(home)
        lines = content["runs"].setdefault(_key(hardware), [])
        lines[:] = [line for line in lines if not (isinstance(line, dict) and line.get("run") == run)]
        backend = _backend(spec)
        lines.append({"run": run, "t": time.time(), "backend": backend, "told": told, "measured": seen})
        del lines[:-MOST]
        write_json(home / NAME, content)
    finally:
        lock.release()
    return True


def remembered(hardware: Hardware, home: Path) -> list[Run]:
    """The runs of this host and device, oldest first; what is damaged is left out."""
    found = []
    for line in _content(home)["runs"].get(_key(hardware), []):
        try:
            told, measured = ({p: int(line[k][p]) for p in PLACES if p in line[k]} for k in ("told", "measured"))
            run = Run(str(line["run"]), str(line["backend"]), told, measured)
        except (TypeError, ValueError, KeyError, AttributeError):
            continue
        if all(told.get(p, 0) > 0 and _plausible(value / told[p]) for p, value in measured.items()):
            found.append(run)
    return found


def calibrated(spec: RunSpec, hardware: Hardware, runs: Iterable[Run]) -> Calibrated:
    """The forecast of ``spec``, corrected by ``runs``."""
    plain = forecast(spec, hardware)
    told, alike = comparable(spec, plain), [run for run in runs if run.backend == _backend(spec)]
    device, host = (_factor(place, told[place], alike) for place in PLACES)
    scaled = replace(
        plain,
        device={
            part: size if part in ALLOCATED_NOT else round(size * (device.ratio if device else 1))
            for part, size in plain.device.items()
        },
        host={part: round(size * (host.ratio if host else 1)) for part, size in plain.host.items()},
    )
    return Calibrated(scaled, device, host)


def forecaster(runs: Sequence[Run]) -> Forecaster:
    """A forecast in the form that levers and strategies ask for, corrected by ``runs``."""
    return lambda spec, hardware: calibrated(spec, hardware, runs).forecast


def comparable(spec: RunSpec, told: Forecast) -> dict[str, int]:
    """Of a forecast what can be measured: what is allocated on the device, and one process's share of the host."""
    device = sum(size for part, size in told.device.items() if part not in ALLOCATED_NOT)
    return {"device": device, "host": told.host_total // spec.launch.gpus_per_node}


def _factor(place: str, told: int, runs: list[Run]) -> Factor | None:
    ratios = [
        run.measured[place] / run.told[place]
        for run in runs
        if place in run.measured and told and 1 / ALIKE <= run.told[place] / told <= ALIKE
    ]
    return Factor(statistics.median(ratios), len(ratios)) if ratios else None


def _plausible(ratio: float) -> bool:
    return PLAUSIBLE[0] <= ratio <= PLAUSIBLE[1]


def _backend(spec: RunSpec) -> str:
    if spec.launch.backend != "auto":
        return spec.launch.backend
    return "deepspeed" if spec.memory.strategy == "offload" else "torch"


def _key(hardware: Hardware) -> str:
    return f"{platform.node()} {hardware.name}"


def _content(home: Path) -> dict[str, Any]:
    content = read_json(home / NAME)
    runs = content.get("runs")
    if content.get("format") != FORMAT or not isinstance(runs, dict):
        return {"format": FORMAT, "runs": {}}
    return {"format": FORMAT, "runs": {key: lines for key, lines in runs.items() if isinstance(lines, list)}}
