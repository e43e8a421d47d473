"""Specs to measure and their measurements, each in a process of its own (``bench.py``); no torch here."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from data.splits import open_split
from engine.host.programs import BENCH, python_module
from engine.preflight import check_backend, resolve_spec
from profiles.errors import SpecError, UserError
from profiles.registry import load, parse_override
from profiles.spec import RunSpec

WARMUP_STEPS = 2  # the first compiles and allots, the second meets the optimizer's states
SHARDS, SYNTHETIC = "shards", "synthetic"
SYNTHETIC_TOKENS = 1 << 20


@dataclass(frozen=True, slots=True)
class Cell:
    """One spec to measure: what it changes in the profile, and whether on shards or on random tokens."""

    changes: dict[str, str]
    spec: RunSpec
    data: str


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure one cell, and in how much of the device. ``patience``: give it up after so many seconds."""

    steps: int | None = None
    seconds: float = 20.0
    cap_gib: float | None = None
    patience: float | None = None


def axes(options: Sequence[str]) -> dict[str, list[str]]:
    """``["micro=4,8", "compile=off,on"]`` → ``{"micro": ["4", "8"], …}``. Raises ``SpecError``."""
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
    """The dotted key, where it may have ``value``. Raises ``SpecError``."""
    if not value:
        raise SpecError(f"--grid {text}: one of its values is empty; write key=value,value")
    try:
        return parse_override(f"{key}={value}")[0]
    except SpecError as error:
        raise SpecError(f"--grid {str(error).removeprefix('-s').lstrip(': ')}") from None


def cells(profile: str, overrides: Sequence[str], grid: Sequence[str], synthetic: bool = False) -> list[Cell]:
    """Every combination of the values in ``grid``, the last key turning fastest; one cell where there is none.

    Raises ``UserError`` for any of them that cannot be run here, before any is.
    """
    named = axes(grid)
    combined = [dict(zip(named, values, strict=True)) for values in itertools.product(*named.values())]
    return [cell(profile, overrides, changes, synthetic) for changes in combined]


def cell(profile: str, overrides: Sequence[str], changes: dict[str, str], synthetic: bool = False) -> Cell:
    """One cell. Random tokens stand in where the spec's data folder is missing. Raises ``UserError``."""
    spec = resolve_spec(load(profile, [*overrides, *(f"{key}={value}" for key, value in changes.items())]))
    check_backend(spec)
    synthetic = synthetic or not (Path(spec.data.root) / spec.data.phase).exists()
    if not synthetic:
        try:
            open_split(spec, "train")
        except UserError as error:
            raise UserError(f"{error}; or measure on random tokens with --synthetic") from None
    return Cell(changes, spec, SYNTHETIC if synthetic else SHARDS)


def run(cell: Cell, effort: Effort, tick: Callable[[float], None] = lambda elapsed: None) -> dict[str, Any]:
    """Measure ``cell`` in a new process: what ``engine.train.measure.bench.measure`` returns, or ``error`` in one line
    (and ``console``, the end of its stderr).

    ``tick`` is told the seconds so far, once a second. An exception in here, Ctrl-C too, ends the process.
    """
    answer: dict[str, Any] = {
        "changes": cell.changes,
        "profile": cell.spec.profile,
        "model": cell.spec.model.name,
        "micro": cell.spec.batch.micro,
        "accum": cell.spec.accum,
        "context": cell.spec.batch.context,
        "data": cell.data,
        "cap_bytes": round(effort.cap_gib * 2**30) if effort.cap_gib else None,
    }
    with tempfile.TemporaryDirectory(prefix="mla-tui-bench-") as scratch:
        spec_path = _prepare(cell, Path(scratch))
        with open(Path(scratch) / "stderr", "w+b") as errors:
            return {**answer, **_measured(_argv(spec_path, effort), errors, effort.patience, tick)}


def _prepare(cell: Cell, scratch: Path) -> Path:
    """Write the spec to measure, and the random shard it needs where the cell has none of its own."""
    spec = replace(cell.spec, train=replace(cell.spec.train, out=str(scratch / "out")))
    if cell.data == SYNTHETIC:
        spec = replace(spec, data=replace(spec.data, root=str(scratch / "data")))
        write_random_shard(Path(spec.data.root) / spec.data.phase / "train" / "random-000.bin", spec)
    path = scratch / "spec.json"
    path.write_text(json.dumps(spec.to_dict()))
    return path


def write_random_shard(path: Path, spec: RunSpec) -> None:
    """Uniformly random ids of the spec's vocabulary, some windows of its context."""
    import numpy as np

    from data.shards import UINT16, UINT32, write_shard

    vocabulary = spec.model.config.vocab_size
    tokens = max(SYNTHETIC_TOKENS, 2 * spec.batch.context) + 1
    dtype = UINT16 if vocabulary <= 65536 else UINT32
    path.parent.mkdir(parents=True)
    write_shard(path, np.random.default_rng(spec.train.seed).integers(0, vocabulary, tokens).astype(dtype))


def _argv(spec_path: Path, effort: Effort) -> list[str]:
    argv = python_module(BENCH, str(spec_path), "--seconds", str(effort.seconds))
    argv += ["--steps", str(effort.steps)] if effort.steps is not None else []
    return [*argv, "--cap-gib", str(effort.cap_gib)] if effort.cap_gib is not None else argv


def _measured(
    argv: list[str], errors: IO[bytes], patience: float | None, tick: Callable[[float], None]
) -> dict[str, Any]:
    begun = time.monotonic()
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
    try:
        while True:
            try:
                out, _ = child.communicate(timeout=1.0)
                break
            except subprocess.TimeoutExpired:
                elapsed = time.monotonic() - begun
                if patience is not None and elapsed > patience:
                    return {"error": f"not measured: took more than {patience:.0f} s"}
                tick(elapsed)
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
    try:
        answer = dict(json.loads(out))
    except ValueError:
        answer = {"error": _cause(child.returncode)}
    return {**answer, "console": _tail(errors)} if "error" in answer else answer


def _cause(code: int) -> str:
    """Why a process that left no answer ended."""
    if code >= 0:
        return f"ended with exit code {code} and no answer"
    hint = ", as the kernel does where memory runs out" if code == -signal.SIGKILL else ""
    return f"killed by {signal.Signals(-code).name}{hint}"


def _tail(errors: IO[bytes]) -> str:
    """The last of what it wrote to stderr: a traceback, where something failed that nobody foresaw."""
    errors.seek(max(0, errors.seek(0, os.SEEK_END) - 4096))
    return errors.read().decode(errors="replace")
