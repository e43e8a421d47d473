"""Corrects forecasts by the measured peaks of past runs on this machine, and keeps their speeds.

``$MLA_TUI_HOME/calibration.json`` holds a line per run, by host and device: its forecast and its measured peak, and the
tokens per second that were predicted and reached. A forecast is multiplied by the median ratio of the similar runs:
those of the same backend and at most twice as large or small, because the error of a small run does not predict that of
a large one. Without similar runs it stays unchanged.
"""

from __future__ import annotations

import math
import platform
import statistics
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from engine.host.files import read_json, write_json
from engine.host.process import Lock
from engine.memory.forecast import NOT_ALLOCATED, Forecast, Forecaster, forecast
from engine.memory.hardware import Hardware
from model.flops import flops_per_token
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
class MeasuredSpeed:
    """The tokens per second that a run reached and those that were predicted. ``key``: what it computed."""

    key: str
    flops_per_token: float
    predicted: float
    tok_s: float


@dataclass(frozen=True, slots=True)
class PastRun:
    """A past run: its forecast and its measured peak, in bytes by memory; its speed where that was measured."""

    name: str
    backend: str
    forecast: Mapping[str, int]
    measured: Mapping[str, int]
    speed: MeasuredSpeed | None = None


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
    _store(spec, hardware, {"forecast": predicted, "measured": peak}, run, home)
    return True


def record_speed(spec: RunSpec, hardware: Hardware, predicted: float, tok_s: float, *, run: str, home: Path) -> bool:
    """Record that the run named ``run`` reached ``tok_s`` tokens per second where ``predicted`` were expected.

    Returns False for what no run can reach. Raises ``OSError`` where ``home`` cannot be written.
    """
    per_token = float(flops_per_token(spec.model.config, spec.batch.context))
    if not _plausible_speed(predicted, tok_s):
        return False
    speed = {"key": speed_key(spec), "flops_per_token": per_token, "predicted": predicted, "tok_s": tok_s}
    _store(spec, hardware, {"speed": speed}, run, home)
    return True


def _store(spec: RunSpec, hardware: Hardware, facts: dict[str, Any], run: str, home: Path) -> None:
    """Add ``facts`` to the line of the run named ``run``, which becomes the newest."""
    home.mkdir(parents=True, exist_ok=True)
    lock = Lock(home / f".{FILE_NAME}.lock")
    lock.acquire(timeout=5.0)
    try:
        content = _content(home)
        lines = content["runs"].setdefault(_key(hardware), [])
        mine = [line for line in lines if isinstance(line, dict) and line.get("run") == run]
        lines[:] = [line for line in lines if line not in mine]
        known: dict[str, Any] = {"forecast": {}, "measured": {}}
        for line in mine:
            known |= line
        lines.append(known | {"run": run, "t": time.time(), "backend": backend_of(spec)} | facts)
        del lines[:-MAX_RUNS]
        write_json(home / FILE_NAME, content)
    finally:
        lock.release()


def speed_key(spec: RunSpec) -> str:
    """Return a checksum of all settings that decide how fast a step is: the same of runs of the same computation."""
    parts = (
        *(sorted(asdict(spec.model.config).items()), asdict(spec.batch), spec.ranks, spec.data.documents),
        *(spec.train.precision, spec.train.compile, spec.train.attention, spec.train.deterministic),
        *(spec.optim.name, spec.memory.strategy, spec.memory.checkpointing, spec.memory.loss, backend_of(spec)),
    )
    return f"{zlib.crc32(repr(parts).encode()):08x}"


def load_past_runs(hardware: Hardware, home: Path) -> list[PastRun]:
    """Return the recorded runs of this host and device, oldest first; damaged lines are skipped."""
    found = []
    for line in _content(home)["runs"].get(_key(hardware), []):
        try:
            predicted, measured = (
                {memory: int(line[key][memory]) for memory in MEMORIES if memory in line[key]}
                for key in ("forecast", "measured")
            )
            run = PastRun(str(line["run"]), str(line["backend"]), predicted, measured, _speed(line.get("speed")))
        except (TypeError, ValueError, KeyError, AttributeError):
            continue
        if all(predicted.get(m, 0) > 0 and _plausible(value / predicted[m]) for m, value in measured.items()):
            found.append(run)
    return found


def _speed(line: Any) -> MeasuredSpeed | None:
    """Return the speed of a line; None where it has none, or one that no run can reach."""
    if not isinstance(line, dict):
        return None
    numbers = [float(line[name]) for name in ("flops_per_token", "predicted", "tok_s")]
    found = MeasuredSpeed(str(line["key"]), *numbers)
    return found if _plausible_speed(found.predicted, found.tok_s) and found.flops_per_token >= 1 else None


def calibrate(spec: RunSpec, hardware: Hardware, runs: Iterable[PastRun]) -> CalibratedForecast:
    """Return the forecast of ``spec``, corrected by the similar ones of ``runs``."""
    plain = forecast(spec, hardware)
    predicted, same_backend = measurable_bytes(spec, plain), [run for run in runs if run.backend == backend_of(spec)]
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
    """Return a function that forecasts and corrects by ``runs``."""
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


def _plausible_speed(predicted: float, tok_s: float) -> bool:
    """A small model may be any number of times slower than its shapes say, but hardly faster."""
    return 0 < predicted < math.inf and 0 < tok_s < math.inf and tok_s / predicted <= 1e3


def backend_of(spec: RunSpec) -> str:
    """Return the backend that ``spec`` runs on, where a launch has not chosen it yet: by its strategy."""
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
