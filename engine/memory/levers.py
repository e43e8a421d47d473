"""Lists memory levers, cheapest first: changes that reduce a run's memory, with what each saves and costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from engine.memory.forecast import Forecaster, forecast
from engine.memory.hardware import Hardware
from engine.memory.headroom import fits_comfortably
from engine.memory.step_time import speed_assumptions, step_seconds
from engine.memory.strategies import STRATEGIES_FASTEST_FIRST, is_available
from profiles.spec import RunSpec

# When a lever applies: at the next step; with --unlock, because it changes the tokens per step; at a restart.
LIVE, UNLOCK, RESTART = "live", "unlock", "restart"
MIN_CONTEXT = 256  # tokens; no lever makes the context shorter


@dataclass(frozen=True, slots=True)
class Lever:
    """One change of the spec.

    ``device_saved`` and ``host_saved`` are bytes (negative: needs more). ``speed`` is the estimated relative change of
    tokens/s (-0.02 is 2% slower); ``basis`` says what that estimate assumes.
    """

    change: str
    changed: dict[str, list[Any]]  # dotted key: [old, new]
    spec: RunSpec
    device_saved: int
    host_saved: int
    speed: float
    basis: str
    when: str  # LIVE, UNLOCK or RESTART
    note: str  # how the arithmetic of a step changes; empty where it does not
    fits: bool
    tight: bool  # fits, but the free memory left may be less than the forecast's error


def levers(spec: RunSpec, hardware: Hardware, forecaster: Forecaster = forecast) -> list[Lever]:
    """Return the changes that save memory and still fit, those that keep the arithmetic of a step first, by speed."""
    before, seconds = forecaster(spec, hardware), step_seconds(spec, hardware)
    found = []
    for changed, other, when, note in _options(spec, hardware, forecaster):
        after = forecaster(other, hardware)
        saved = before.device_total - after.device_total, before.host_total - after.host_total
        seconds_per_token = step_seconds(other, hardware) / other.tokens_per_step
        speed = seconds / spec.tokens_per_step / seconds_per_token - 1
        if max(saved) > 0 and (after.fits(hardware) or not before.fits(hardware)):
            found.append(
                Lever(
                    change=_describe(changed),
                    changed=changed,
                    spec=other,
                    device_saved=saved[0],
                    host_saved=saved[1],
                    speed=speed,
                    basis=speed_assumptions(hardware),
                    when=when,
                    note=note,
                    fits=after.fits(hardware),
                    tight=after.fits(hardware) and not fits_comfortably(after, hardware),
                )
            )
    return sorted(found, key=lambda one: (bool(one.note), -round(one.speed, 3), -one.device_saved - one.host_saved))


Option = tuple[dict[str, list[Any]], RunSpec, str, str]  # changed, spec, when, note
NOTES = {
    "states8bit": "moments in 8 bits",
    "offload": "gradients summed in bf16",
    "bf16_sr": "bf16 weights, stochastic rounding",
}


def _options(spec: RunSpec, hardware: Hardware, forecaster: Forecaster) -> Iterator[Option]:
    batch, memory = spec.batch, spec.memory
    smaller = [n for n in range(batch.micro - 1, 0, -1) if batch.sequences % (n * spec.ranks) == 0]
    fitting = [(n, after) for n in smaller if (after := forecaster(_with_micro(spec, n), hardware)).fits(hardware)]
    comfortable = [n for n, after in fitting if fits_comfortably(after, hardware)]
    for micro in dict.fromkeys([*smaller[:2], *[n for n, _ in fitting[:1]], *comfortable[:1]]):
        other = _with_micro(spec, micro)
        yield {"batch.micro": [batch.micro, micro], "batch.accum": [spec.accum, other.accum]}, other, LIVE, ""
    if memory.loss == "plain":
        yield _restart_option(spec, {"memory.loss": "fused"}, "")
    for kind in _stronger_checkpointing(memory.checkpointing, spec, hardware):
        yield _restart_option(spec, {"memory.checkpointing": kind}, "")
    for name in STRATEGIES_FASTEST_FIRST:
        if memory.strategy not in ("auto", name) and is_available(name, spec, hardware):
            yield _restart_option(spec, {"memory.strategy": name}, NOTES.get(name, ""))
        masters = spec.train.precision != "bf16_sr" and spec.launch.backend in ("auto", "torch")
        if name != "offload" and masters and hardware.device != "mlx" and is_available(name, spec, hardware):
            changes = {"memory.strategy": name, "train.precision": "bf16_sr"}
            yield _restart_option(spec, changes, NOTES["bf16_sr"])
    if batch.context >= 2 * MIN_CONTEXT:
        half = batch.context // 2
        other = replace(spec, batch=replace(batch, context=half))
        yield {"batch.context": [batch.context, half]}, other, UNLOCK, "changes tokens per step"


def _with_micro(spec: RunSpec, micro: int) -> RunSpec:
    return replace(spec, batch=replace(spec.batch, micro=micro))


def _restart_option(spec: RunSpec, changes: dict[str, str], note: str) -> Option:
    other, changed = spec, {}
    for key, value in changes.items():
        table, _, name = key.partition(".")
        old = getattr(getattr(spec, table), name)
        if old != value:
            changed[key] = [old, value]
            other = replace(other, **{table: replace(getattr(other, table), **{name: value})})
    return changed, other, RESTART, note


def _describe(changed: dict[str, list[Any]]) -> str:
    """Return ``micro 12→6, accum 8→16``; of text values only the new one."""
    return ", ".join(
        f"{key.partition('.')[2]} {f'{old}→' if isinstance(old, int) else ''}{new}"
        for key, (old, new) in changed.items()
    )


def _stronger_checkpointing(checkpointing: str, spec: RunSpec, hardware: Hardware) -> tuple[str, ...]:
    """Return the kinds of checkpointing that keep less. Only a card can offload to the host; MLX has "full" alone."""
    kinds = ("selective", "full", "offload")
    stronger = kinds[kinds.index(checkpointing) + 1 :] if checkpointing in kinds else kinds
    if spec.launch.backend == "mlx" or hardware.device == "mlx":
        return tuple(kind for kind in stronger if kind == "full")
    return stronger if hardware.device == "cuda" else tuple(kind for kind in stronger if kind != "offload")
