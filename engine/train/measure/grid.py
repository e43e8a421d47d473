"""Builds the specs of a benchmark grid and measures each in its own process (``bench.py``). Needs no torch."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from data.splits import open_split, phases_of
from engine.host.programs import BENCH, WITH_PARENT, python_module
from engine.memory.hardware import detect_hardware
from engine.memory.launch_fit import launch_fit
from engine.preflight import check_backend, resolve_spec
from engine.train.backends.thread_environment import thread_environment
from profiles.errors import SpecError, UserError
from profiles.registry import check_none_replaced, check_once, load, parse_override
from profiles.spec import RunSpec

WARMUP_STEPS = 2  # the first compiles and allocates, the second is the first with optimizer states
SHARDS, SYNTHETIC = "shards", "synthetic"
SYNTHETIC_TOKENS = 1 << 20


@dataclass(frozen=True, slots=True)
class Cell:
    """A spec to measure, its changes to the profile, and its data: ``SHARDS`` or ``SYNTHETIC``."""

    changes: dict[str, str]
    spec: RunSpec
    data: str


@dataclass(frozen=True, slots=True)
class Budget:
    """How long to measure a cell, and in how much device memory.

    ``timeout``: seconds after which to give up. ``peak``: FLOP/s of its matrix products, if they were measured before.
    """

    steps: int | None = None
    seconds: float = 20.0
    cap_gib: float | None = None
    timeout: float | None = None
    peak: float | None = None


def parse_grid(options: Sequence[str]) -> dict[str, list[str]]:
    """Parse ``["micro=4,8", "compile=off,on"]`` into ``{"micro": ["4", "8"], …}``. Raises ``SpecError``."""
    found: dict[str, list[str]] = {}
    full_keys: set[str] = set()
    for text in options:
        key, equals, values = (part.strip() for part in text.partition("="))
        if not equals or not key:
            raise SpecError(f"--grid {text}: write key=value,value, for example --grid micro=4,8")
        found[key] = [value.strip() for value in values.split(",")]
        full_key = {_full_key(text, key, value) for value in found[key]}
        if full_key & full_keys:
            raise SpecError(f"--grid {key}: is given twice; name all its values once: {key}=value,value")
        full_keys |= full_key
    return found


def _full_key(text: str, key: str, value: str) -> str:
    """Return the dotted key. Raises ``SpecError`` where there is no such key or ``value`` is not valid for it."""
    if not value:
        raise SpecError(f"--grid {text}: one of its values is empty; write key=value,value")
    try:
        return parse_override(f"{key}={value}")[0]
    except SpecError as error:
        raise SpecError(f"--grid {str(error).removeprefix('-s').lstrip(': ')}") from None


def grid_cells(profile: str, overrides: Sequence[str], grid: Sequence[str], synthetic: bool = False) -> list[Cell]:
    """Return a cell for every combination of values in ``grid``, the last key varying fastest; one for an empty grid.

    Raises ``UserError`` if any of them cannot run here.
    """
    named = parse_grid(grid)
    for key, values in named.items():  # else those of the grid would replace what -s sets without a word
        given = [*overrides, f"{key}={','.join(values)}"]
        check_once(given)
        check_none_replaced(given)
    combined = [dict(zip(named, values, strict=True)) for values in itertools.product(*named.values())]
    return [build_cell(profile, overrides, changes, synthetic) for changes in combined]


def build_cell(profile: str, overrides: Sequence[str], changes: dict[str, str], synthetic: bool = False) -> Cell:
    """Return one cell, on random tokens if the spec's data directory is missing. Raises ``UserError``."""
    spec = resolve_spec(load(profile, [*overrides, *(f"{key}={value}" for key, value in changes.items())]))
    if spec.ranks > 1:
        raise UserError(
            f"launch: the spec has {spec.ranks} ranks, and bench measures one;"
            f" use -s nodes=1 -s gpus_per_node=1 -s sequences={spec.batch.sequences // spec.ranks}"
        )
    check_backend(spec)
    synthetic = synthetic or not any(folder.exists() for folder in phases_of(spec).values())
    if not synthetic:
        try:
            open_split(spec, "train")
        except UserError as error:
            raise UserError(f"{error}; or measure on random tokens with --synthetic") from None
    return Cell(changes, spec, SYNTHETIC if synthetic else SHARDS)


def measure_cell(cell: Cell, budget: Budget, on_tick: Callable[[float], None] = lambda elapsed: None) -> dict[str, Any]:
    """Measure ``cell`` in a new process. Return the result of ``engine.train.measure.bench.measure``, or ``error`` in
    one line and ``console``, the end of its stderr.

    ``on_tick`` is called once a second with the elapsed seconds. An exception, Ctrl-C too, ends the process, and so
    does the end of this one, also by SIGKILL.
    """
    answer: dict[str, Any] = {
        "changes": cell.changes,
        "profile": cell.spec.profile,
        "model": cell.spec.model.name,
        "micro": cell.spec.batch.micro,
        "accum": cell.spec.accum,
        "context": cell.spec.batch.context,
        "data": cell.data,
        "cap_bytes": round(budget.cap_gib * 2**30) if budget.cap_gib else None,
    }
    if why := _too_large(cell.spec):
        return {**answer, "error": why, "console": ""}
    with tempfile.TemporaryDirectory(prefix="mla-tui-bench-") as scratch:
        spec_path = _prepare(cell, Path(scratch))
        with open(Path(scratch) / "stderr", "w+b") as errors:
            return {**answer, **_measured(_argv(spec_path, budget), errors, budget.timeout, on_tick)}


def _too_large(spec: RunSpec) -> str:
    """Return why ``spec`` cannot fit into host memory, or nothing.

    A card refuses what it does not have; for host memory the kernel kills, and perhaps another program.
    """
    hardware = detect_hardware()
    fit = launch_fit(replace(spec, memory=replace(spec.memory, oom="fail")), hardware, [])
    return fit.text if hardware.device == "cpu" and not fit.possible else ""


def _prepare(cell: Cell, scratch: Path) -> Path:
    """Write the spec to measure, and a shard of random tokens if the cell is ``SYNTHETIC``."""
    spec = replace(cell.spec, train=replace(cell.spec.train, out=str(scratch / "out")))
    if cell.data == SYNTHETIC:
        spec = replace(spec, data=replace(spec.data, root=str(scratch / "data"), sources={}))
        write_random_shard(Path(spec.data.root) / spec.data.phase / "train" / "random-000.bin", spec)
    path = scratch / "spec.json"
    path.write_text(json.dumps(spec.to_dict()))
    return path


def write_random_shard(path: Path, spec: RunSpec) -> None:
    """Write uniformly random ids of the spec's vocabulary, enough for several windows of its context."""
    import numpy as np

    from data.dtypes import UINT16, UINT32
    from data.shard_file import write_shard

    vocabulary = spec.model.config.vocab_size
    tokens = max(SYNTHETIC_TOKENS, 2 * spec.batch.context) + 1
    dtype = UINT16 if vocabulary <= 65536 else UINT32
    path.parent.mkdir(parents=True)
    write_shard(path, np.random.default_rng(spec.train.seed).integers(0, vocabulary, tokens).astype(dtype))


def _argv(spec_path: Path, budget: Budget) -> list[str]:
    argv = python_module(WITH_PARENT, str(spec_path.parent), BENCH, str(spec_path), "--seconds", str(budget.seconds))
    argv += ["--steps", str(budget.steps)] if budget.steps is not None else []
    argv += ["--peak", str(budget.peak)] if budget.peak is not None else []
    return [*argv, "--cap-gib", str(budget.cap_gib)] if budget.cap_gib is not None else argv


def _measured(
    argv: list[str], errors: IO[bytes], timeout: float | None, on_tick: Callable[[float], None]
) -> dict[str, Any]:
    start = time.monotonic()
    with _started(argv, errors) as child:
        while True:
            try:
                out, _ = child.communicate(timeout=1.0)
                break
            except subprocess.TimeoutExpired:
                elapsed = time.monotonic() - start
                if timeout is not None and elapsed > timeout:
                    return {"error": f"not measured: took more than {timeout:.0f} s"}
                on_tick(elapsed)
    try:
        answer = dict(json.loads(out))
    except ValueError:
        answer = {"error": _cause(child.returncode)}
    return {**answer, "console": _tail(errors)} if "error" in answer else answer


@contextlib.contextmanager
def _started(argv: list[str], errors: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Start ``argv`` and end its process on exit.

    An interrupt that comes while it is being started is raised once there is a process to end; else it would go on
    measuring without anyone to end it.
    """
    received: list[int] = []
    handlers = {
        held: signal.signal(held, lambda number, _: received.append(number)) for held in (signal.SIGINT, signal.SIGTERM)
    }
    child = None
    its_stdin, ours = os.pipe()  # nothing is written: it ends when this process does
    try:
        try:
            env = {**os.environ, **thread_environment()}
            child = subprocess.Popen(argv, stdin=its_stdin, stdout=subprocess.PIPE, stderr=errors, env=env)
        finally:
            os.close(its_stdin)
            for held, handler in handlers.items():
                signal.signal(held, handler)
        for number in received:
            signal.raise_signal(number)
        yield child
    finally:
        if child is not None and child.poll() is None:
            child.kill()
            child.wait()
        os.close(ours)


def _cause(code: int) -> str:
    """Return why a process ended without a result."""
    if code >= 0:
        return f"ended with exit code {code} and no result"
    hint = ", as by the kernel's out-of-memory killer" if code == -signal.SIGKILL else ""
    return f"killed by {signal.Signals(-code).name}{hint}"


def _tail(errors: IO[bytes]) -> str:
    """Return the end of its stderr, such as the traceback of an unexpected error."""
    errors.seek(max(0, errors.seek(0, os.SEEK_END) - 4096))
    return errors.read().decode(errors="replace")
