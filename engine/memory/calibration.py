"""Corrects forecasts by the measured peaks of past runs on this machine.

``$MLA_TUI_HOME/calibration.json`` holds a line per run, by host and device: its forecast and its measured peak. A
forecast is multiplied by the median ratio of the similar runs: those of the same backend and at most twice as large or
small, because the error of a small run does not predict that of a large one. Without similar runs it stays unchanged.
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
from engine.memory.forecast import NOT_ALLOCATED, Forecast, Forecaster, forecast
from engine.memory.hardware import Hardware
from profiles.spec import RunSpec

FILE_NAME = "calibration.json"
FORMAT = 2
MAX_RUNS = 64  # kept per device; the oldest are dropped first
MAX_SIZE_RATIO = 2.0  # how many times larger or smaller a similar run may be
PLAUSIBLE_RATIOS = (0.5, 2.0)  # others come from a run that did not get far, or from another program's memory
MEMORIES = ("device", "host")


@dataclass(frozen=True, slots=True)
class MeasuredPeak:
    """A run's measured peak in bytes; None where unknown.

    ``device``: the most bytes allocated (``device_peak`` of step records). ``host``: the largest resident set of one of
    its processes (``rss`` of telemetry).
    """

    device: int | None = None
    host: int | None = None


@dataclass(frozen=True, slots=True)
class PastRun:
    """A past run: its forecast and its measured peak, in bytes by memory."""

    name: str
    backend: str
    forecast: Mapping[str, int]
    measured: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Correction:
    """The ratio to multiply a forecast by, and the number of runs it comes from."""

    ratio: float
    runs: int


@dataclass(frozen=True, slots=True)
class CalibratedForecast:
    """A corrected forecast; ``device`` and ``host`` are None where no past run is similar."""

    forecast: Forecast
    device: Correction | None
    host: Correction | None

    @property
    def description(self) -> str:
        """``calibrated: device ×1.04 from 3 runs on this machine``; empty without corrections."""
        corrections = [
            f"{memory} ×{correction.ratio:.2f} from {correction.runs} run{'s' if correction.runs > 1 else ''}"
            for memory, correction in (("device", self.device), ("host", self.host))
            if correction
        ]
        return f"calibrated: {', '.join(corrections)} on this machine" if corrections else ""


def record_run(spec: RunSpec, hardware: Hardware, measured: MeasuredPeak, *, run: str, home: Path) -> bool:
    """Record the peak of the run named ``run``, replacing an earlier record of it.

    Returns False where no plausible peak was measured. Raises ``OSError`` where ``home`` cannot be written.
    """
    predicted = measurable_bytes(spec, forecast(spec, hardware))
    peak = {memory: value for memory in MEMORIES if (value := getattr(measured, memory)) and predicted[memory]}
    peak = {memory: value for memory, value in peak.items() if _plausible(value / predicted[memory])}
    if not peak:
        return False
    home.mkdir(parents=True, exist_ok=True)
    lock = Lock(home / f".{FILE_NAME}.lock")
    lock.acquire(timeout=5.0)
    try:
        content = _content(home)
        lines = content["runs"].setdefault(_key(hardware), [])
        lines[:] = [line for line in lines if not (isinstance(line, dict) and line.get("run") == run)]
        backend = _backend(spec)
        lines.append({"run": run, "t": time.time(), "backend": backend, "forecast": predicted, "measured": peak})
        del lines[:-MAX_RUNS]
        write_json(home / FILE_NAME, content)
    finally:
        lock.release()
    return True


def load_past_runs(hardware: Hardware, home: Path) -> list[PastRun]:
    """Return the recorded runs of this host and device, oldest first; damaged lines are skipped."""
    found = []
    for line in _content(home)["runs"].get(_key(hardware), []):
        try:
            predicted, measured = (
                {memory: int(line[key][memory]) for memory in MEMORIES if memory in line[key]}
                for key in ("forecast", "measured")
            )
            run = PastRun(str(line["run"]), str(line["backend"]), predicted, measured)
        except (TypeError, ValueError, KeyError, AttributeError):
            continue
        if all(predicted.get(m, 0) > 0 and _plausible(value / predicted[m]) for m, value in measured.items()):
            found.append(run)
    return found


def calibrate(spec: RunSpec, hardware: Hardware, runs: Iterable[PastRun]) -> CalibratedForecast:
    """Return the forecast of ``spec``, corrected by the similar ones of ``runs``."""
    plain = forecast(spec, hardware)
    predicted, same_backend = measurable_bytes(spec, plain), [run for run in runs if run.backend == _backend(spec)]
    device, host = (_correction(memory, predicted[memory], same_backend) for memory in MEMORIES)
    scaled = replace(
        plain,
        device={
            part: size if part in NOT_ALLOCATED else round(size * (device.ratio if device else 1))
            for part, size in plain.device.items()
        },
        host={part: round(size * (host.ratio if host else 1)) for part, size in plain.host.items()},
    )
    return CalibratedForecast(scaled, device, host)


def calibrated_forecaster(runs: Sequence[PastRun]) -> Forecaster:
    """Return a function for ``levers`` and ``available_strategies`` that forecasts and corrects by ``runs``."""
    return lambda spec, hardware: calibrate(spec, hardware, runs).forecast


def measurable_bytes(spec: RunSpec, forecast: Forecast) -> dict[str, int]:
    """Return the forecast of what is measured: bytes allocated on the device, and one process's host memory."""
    device = sum(size for part, size in forecast.device.items() if part not in NOT_ALLOCATED)
    return {"device": device, "host": forecast.host_total // spec.launch.gpus_per_node}


def _correction(memory: str, predicted: int, runs: list[PastRun]) -> Correction | None:
    ratios = [
        run.measured[memory] / run.forecast[memory]
        for run in runs
        if memory in run.measured
        and predicted
        and 1 / MAX_SIZE_RATIO <= run.forecast[memory] / predicted <= MAX_SIZE_RATIO
    ]
    return Correction(statistics.median(ratios), len(ratios)) if ratios else None


def _plausible(ratio: float) -> bool:
    return PLAUSIBLE_RATIOS[0] <= ratio <= PLAUSIBLE_RATIOS[1]


def _backend(spec: RunSpec) -> str:
    if spec.launch.backend != "auto":
        return spec.launch.backend
    return "deepspeed" if spec.memory.strategy == "offload" else "torch"


def _key(hardware: Hardware) -> str:
    return f"{platform.node()} {hardware.name}"


def _content(home: Path) -> dict[str, Any]:
    content = read_json(home / FILE_NAME)
    runs = content.get("runs")
    if content.get("format") != FORMAT or not isinstance(runs, dict):
        return {"format": FORMAT, "runs": {}}
    return {"format": FORMAT, "runs": {key: lines for key, lines in runs.items() if isinstance(lines, list)}}
