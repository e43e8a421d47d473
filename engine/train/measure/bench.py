"""Measures how fast a spec trains: ``python -m engine.train.measure.bench SPEC.json`` prints one JSON object.

It runs the real trainer with a reporter that records times and requests the stop. ``grid.py`` starts one process for
each spec, so that memory peaks, compiled code and out-of-memory errors do not affect the next.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import signal
import statistics
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from engine.events.requests import StopRequest
from engine.events.types import Command, Event, Progress, Step
from engine.host.programs import BENCH
from engine.host.version import VERSION
from engine.memory.hardware import cpu_name
from engine.train.backends.backend import Backend
from engine.train.backends.build import build_backend
from engine.train.backends.cuda_environment import prepare_cuda
from engine.train.backends.ranks import SingleRank
from engine.train.loop import Trainer
from engine.train.measure.grid import WARMUP_STEPS
from engine.train.measure.kernel_profile import profile_micro_batch
from engine.train.measure.matmul_peak import matmul_peak, synchronize
from engine.train.oom.recognize import OutOfMemoryFailure, recognize
from engine.train.phases import IDLE, REDUCE
from engine.train.run_state import RunState
from model.flops import flops_per_token
from profiles.errors import UserError
from profiles.spec import RunSpec

OUT_OF_MEMORY = "out of memory"
MIN_STEPS = 3
SPLIT_STEPS = 3
MATMUL_PEAK_SECONDS = 3.0
PARTS = ("data", "forward", "backward", "optimizer")
_PART_OF = {IDLE: "forward", REDUCE: "optimizer"}  # the other phases are parts of the same name


class Meter:
    """A reporter that times the warm-up, then whole steps, then steps by phase, and then requests a stop.

    Steps by phase are timed separately, because timing a phase waits for the device, which training does not do.
    """

    def __init__(self, backend: Backend, steps: int | None, seconds: float) -> None:
        """Time ``steps`` whole steps, or as many as begin within ``seconds`` (at least ``MIN_STEPS``)."""
        self.warmup: list[float] = []  # seconds from the end of a step to the end of the next
        self.steps: list[float] = []
        self.splits: list[dict[str, float]] = []  # seconds by part
        self.device_peak: int | None = None
        self.device_reserved: int | None = None
        self._backend = backend
        self._max_steps, self._seconds = steps, seconds
        self._on_step: Callable[[float, float], None] = self._on_warmup_step
        self._parts: defaultdict[str, float] = defaultdict(float)
        self._phase = IDLE
        self._stop = False
        self._last = time.perf_counter()

    def record(self, event: Event) -> None:
        if not isinstance(event, Step):
            return
        if event.device_peak is not None:
            self.device_peak = max(self.device_peak or 0, int(event.device_peak))
            if self._backend.device == "cuda":
                self.device_reserved = max(self.device_reserved or 0, torch.cuda.memory_reserved())
        self._on_step(time.perf_counter() - self._last, event.data_s or 0.0)
        self._last = time.perf_counter()

    def commands(self) -> list[Command]:
        return [Command(id="bench", request=StopRequest(save=False), by="bench")] if self._stop else []

    def progress(self, progress: Progress) -> None:
        pass

    def events_to_replay(self) -> list[Event]:
        return []

    def close(self) -> None:
        pass

    def _on_warmup_step(self, step_s: float, data_s: float) -> None:
        self.warmup.append(step_s)
        if len(self.warmup) == WARMUP_STEPS:
            synchronize(self._backend.device)
            self._on_step = self._on_timed_step

    def _on_timed_step(self, step_s: float, data_s: float) -> None:
        self.steps.append(step_s)
        enough = len(self.steps) >= MIN_STEPS and sum(self.steps) >= self._seconds
        if len(self.steps) == self._max_steps or (self._max_steps is None and enough):
            synchronize(self._backend.device)
            self._backend.phases.listen(self._enter_phase)
            self._on_step = self._on_split_step

    def _on_split_step(self, since_last_phase: float, data_s: float) -> None:
        self._parts["forward"] -= data_s  # the data is read before the first forward begins
        self.splits.append({**self._parts, "data": data_s})
        self._parts.clear()
        self._stop = len(self.splits) == min(SPLIT_STEPS, len(self.steps))

    def _enter_phase(self, phase: str) -> None:
        synchronize(self._backend.device)
        now = time.perf_counter()
        self._parts[_PART_OF.get(self._phase, self._phase)] += now - self._last
        self._phase, self._last = phase, now


def measure(
    spec: RunSpec, steps: int | None = None, seconds: float = 20.0, peak: float | None = None
) -> dict[str, Any]:
    """Train ``spec`` until enough steps are timed, saving nothing; return JSON values in bytes, seconds and tokens.

    ``peak``: the FLOP/s of its matrix products, if they were measured before.
    Raises UserError, and the errors of torch when memory runs out.
    """
    found = _train(spec, steps, seconds)
    gc.collect()
    if found["device"] == "cuda":
        torch.cuda.empty_cache()  # the matmul peak is measured in the memory that the model has freed
    if peak is None:
        peak, _ = matmul_peak(
            spec.model.config,
            spec.batch.micro * spec.batch.context,
            torch.bfloat16 if "bf16" in found["plan"]["precision"] else torch.float32,
            found["device"],
            MATMUL_PEAK_SECONDS,
        )
    per_token = flops_per_token(spec.model.config, spec.batch.context)
    fraction = found["tok_s"] * per_token / peak
    return {**found, "flops_per_token": per_token, "matmul_peak_flop_s": peak, "matmul_peak_fraction": fraction}


def _train(spec: RunSpec, steps: int | None, seconds: float) -> dict[str, Any]:
    """Train ``spec`` and return its times and peaks. The model is freed on return."""
    quiet = replace(
        spec,
        train=replace(spec.train, steps=10**9, val_every=0, save_every=0),
        memory=replace(spec.memory, oom="fail"),  # never measure a smaller micro-batch instead
    )
    before = _host_peak()
    state = RunState(quiet)
    backend = build_backend(quiet, SingleRank(), state.document_end)
    meter = Meter(backend, steps, seconds)
    Trainer(state, backend, meter, Path(spec.train.out)).run(None, None)
    step_s = statistics.median(meter.steps)
    return {
        "device": backend.device,
        "device_name": torch.cuda.get_device_name() if backend.device == "cuda" else cpu_name(),
        "threads": torch.get_num_threads(),
        "versions": {"mla-tui": VERSION, **backend.versions},
        "plan": backend.plan,
        "params": spec.model.config.params,
        "tokens_per_step": spec.tokens_per_step,
        "tok_s": spec.tokens_per_step / step_s,
        "step_s": {"median": step_s, "min": min(meter.steps), "max": max(meter.steps), "steps": len(meter.steps)},
        "split_s": {part: statistics.median(split[part] for split in meter.splits) for part in PARTS},
        "warmup_s": sum(meter.warmup),
        "peak": {
            "device": meter.device_peak,
            "device_reserved": meter.device_reserved,
            "host": _host_peak() - before,
            "process": _host_peak(),
        },
        "kernels": asdict(profile_micro_batch(backend, quiet)) if backend.device == "cuda" else None,
    }


def cap_device(gib: float) -> None:
    """Limit this process to ``gib`` GiB of the device's memory. Raises ``UserError`` without a device.

    The CUDA context and its libraries come on top (some hundreds of MiB), as they do on a card of that size.
    """
    if not torch.cuda.is_available():
        raise UserError("--cap-gib: this machine shows no CUDA device to cap")
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, gib * 2**30 / total))


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # on Ctrl-C end silently; the process that started this one reports
    parser = argparse.ArgumentParser(prog=BENCH, description="Measure how fast a spec trains; print JSON.")
    parser.add_argument("spec", type=Path, help="a resolved spec, such as a run's spec.json")
    parser.add_argument("--steps", type=int, help="number of steps to time")
    parser.add_argument("--seconds", type=float, default=20.0, help="time steps for this long (default 20)")
    parser.add_argument("--cap-gib", type=float, help="allocate at most this much of the device")
    parser.add_argument("--peak", type=float, help="FLOP/s of the matrix products, measured before")
    args = parser.parse_args()
    stdout = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not mix with the result
    print(json.dumps(_measure_or_error(args)), file=stdout, flush=True)


def _measure_or_error(args: argparse.Namespace) -> dict[str, Any]:
    """Return the measurement, or ``{"error": one line}``."""
    prepare_cuda()
    try:
        if args.cap_gib is not None:
            cap_device(args.cap_gib)
        return measure(RunSpec.from_dict(json.loads(args.spec.read_text())), args.steps, args.seconds, args.peak)
    except OutOfMemoryFailure:
        return {"error": OUT_OF_MEMORY}
    except UserError as error:
        return {"error": str(error)}
    except Exception as error:
        if recognize(error, IDLE) is not None:
            return {"error": OUT_OF_MEMORY}
        traceback.print_exc()
        lines = str(error).strip().splitlines()
        return {"error": f"{type(error).__name__}: {lines[0] if lines else ''}"}


def _host_peak() -> int:
    """Return the largest resident set of this process in bytes.

    On Linux VmHWM is reset by exec; the value of getrusage is inherited from the parent process.
    """
    if sys.platform == "linux":
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    main()
