"""Resolves every "auto" about memory for one machine, so that a run's spec holds the choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from engine.memory.calibration import PastRun
from engine.memory.hardware import Hardware
from engine.memory.search.search import Search
from profiles.spec import AUTO, RunSpec


def open_keys(spec: RunSpec) -> list[str]:
    """Return the keys about memory that ``spec`` leaves to the search."""
    said = {
        "memory.strategy": spec.memory.strategy,
        "memory.checkpointing": spec.memory.checkpointing,
        "train.precision": spec.train.precision,
        "batch.micro": AUTO if spec.auto_micro else "",
    }
    return [key for key, value in said.items() if value == AUTO]


def choose(spec: RunSpec, hardware: Hardware, past_runs: Sequence[PastRun] = ()) -> RunSpec:
    """Return ``spec`` with the best way to run it on ``hardware``, of those that it leaves open.

    Where the spec contradicts itself, it is returned as it is; where nothing that it can use is installed, with what is
    missing. Preflight says both.
    """
    if not open_keys(spec):
        return spec
    ways = Search(hardware, past_runs).chosen_from(spec)
    if not ways:
        return spec
    chosen = ways[0].spec
    if spec.train.precision == AUTO and hardware.device == "cpu" and chosen.train.precision != "bf16_sr":
        # A card that NVML does not report looks like a CPU here; the trainer sees it.
        chosen = replace(chosen, train=replace(chosen.train, precision=AUTO))
    return chosen


def keep_choices(spec: RunSpec, saved: RunSpec) -> RunSpec:
    """Return ``spec``, which continues a run of ``saved``, with what it leaves open as it was chosen for that run.

    Another backend cannot use the choice; a micro-batch that does not divide the sequences any more is left open too.
    """
    if spec.launch.backend not in (AUTO, saved.launch.backend):
        return spec
    kept = open_keys(spec)
    if "batch.micro" in kept and spec.batch.sequences % (saved.batch.micro * spec.ranks):
        kept.remove("batch.micro")
    for key in kept:
        table, _, name = key.partition(".")
        spec = spec.with_values("--resume", **{table: {name: getattr(getattr(saved, table), name)}})
    return replace(spec, resolved=(*spec.resolved, *kept))
