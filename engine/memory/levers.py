"""Ways to make a run smaller, cheapest first: what each changes, saves and costs, and when it can be applied."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from engine.memory.forecast import Forecaster, forecast
from engine.memory.hardware import Hardware
from engine.memory.headroom import comfortable
from engine.memory.step_time import basis, step_seconds
from engine.memory.strategies import FASTEST_FIRST, is_open
from profiles.spec import RunSpec

LIVE, UNLOCK, RESTART = "live", "unlock", "restart"  # at once; with --unlock, for it changes what a step is; anew
SHORTEST = 256  # tokens of context below which nobody wants to be


@dataclass(frozen=True, slots=True)
class Lever:
    """One change. ``device`` and ``host`` are the bytes it saves (negative: needs more); ``speed`` is the estimated
    change in tokens a second, -0.02 for two in a hundred fewer, resting on ``basis``."""

    change: str
    changed: dict[str, list[Any]]  # dotted key: [old, new]
    spec: RunSpec
    device: int
    host: int
    speed: float
    basis: str
    when: str  # LIVE, UNLOCK or RESTART
    note: str  # what becomes of the arithmetic of a step, where that does not stay
    fits: bool
    tight: bool  # it fits, but the forecast's own error may be more than what stays free


def levers(spec: RunSpec, hardware: Hardware, told: Forecaster = forecast) -> list[Lever]:
    """What can be changed to save memory without outgrowing what is free: first what leaves the arithmetic of a step as
    it is, and of that the cheapest. ``told`` forecasts; a calibrated one may stand in."""
    now, seconds = told(spec, hardware), step_seconds(spec, hardware)
    found = []
    for changed, other, when, note in _ways(spec, hardware, told):
        then = told(other, hardware)
        saved = now.device_total - then.device_total, now.host_total - then.host_total
        each = step_seconds(other, hardware) / other.tokens_per_step
        speed = seconds / spec.tokens_per_step / each - 1
        if max(saved) > 0 and (then.fits(hardware) or not now.fits(hardware)):
            found.append(
                Lever(
                    change=_words(changed),
                    changed=changed,
                    spec=other,
                    device=saved[0],
                    host=saved[1],
                    speed=speed,
                    basis=basis(hardware),
                    when=when,
                    note=note,
                    fits=then.fits(hardware),
                    tight=then.fits(hardware) and not comfortable(then, hardware),
                )
            )
    return sorted(found, key=lambda lever: (bool(lever.note), -round(lever.speed, 3), -lever.device - lever.host))


Way = tuple[dict[str, list[Any]], RunSpec, str, str]
NOTES = {
    "states8bit": "moments in 8 bits",
    "offload": "gradients summed in bf16",
    "bf16_sr": "bf16 weights, stochastic rounding",
}


def _ways(spec: RunSpec, hardware: Hardware, told: Forecaster) -> Iterator[Way]:
    batch, memory = spec.batch, spec.memory
    smaller = [n for n in range(batch.micro - 1, 0, -1) if batch.sequences % (n * spec.ranks) == 0]
    enough = [(n, then) for n in smaller if (then := told(_with_micro(spec, n), hardware)).fits(hardware)]
    at_ease = [n for n, then in enough if comfortable(then, hardware)]
    for micro in dict.fromkeys([*smaller[:2], *[n for n, _ in enough[:1]], *at_ease[:1]]):
        other = _with_micro(spec, micro)
        yield {"batch.micro": [batch.micro, micro], "batch.accum": [spec.accum, other.accum]}, other, LIVE, ""
    if memory.loss == "plain":
        yield _restarted(spec, {"memory.loss": "fused"}, "")
    for kind in _stronger(memory.checkpointing, spec, hardware):
        yield _restarted(spec, {"memory.checkpointing": kind}, "")
    for name in FASTEST_FIRST:
        if memory.strategy not in ("auto", name) and is_open(name, spec, hardware):
            yield _restarted(spec, {"memory.strategy": name}, NOTES.get(name, ""))
        masters = spec.train.precision != "bf16_sr" and spec.launch.backend in ("auto", "torch")
        if name != "offload" and masters and hardware.device != "mlx" and is_open(name, spec, hardware):
            changes = {"memory.strategy": name, "train.precision": "bf16_sr"}
            yield _restarted(spec, changes, NOTES["bf16_sr"])
    if batch.context >= 2 * SHORTEST:
        half = batch.context // 2
        other = replace(spec, batch=replace(batch, context=half))
        yield {"batch.context": [batch.context, half]}, other, UNLOCK, "another step"


def _with_micro(spec: RunSpec, micro: int) -> RunSpec:
    return replace(spec, batch=replace(spec.batch, micro=micro))


def _restarted(spec: RunSpec, changes: dict[str, str], note: str) -> Way:
    other, changed = spec, {}
    for key, value in changes.items():
        table, _, name = key.partition(".")
        old = getattr(getattr(spec, table), name)
        if old != value:
            changed[key] = [old, value]
            other = replace(other, **{table: replace(getattr(other, table), **{name: value})})
    return changed, other, RESTART, note


def _words(changed: dict[str, list[Any]]) -> str:
    """``micro 12→6, accum 8→16``; of words only the new one."""
    return ", ".join(
        f"{key.partition('.')[2]} {f'{old}→' if isinstance(old, int) else ''}{new}"
        for key, (old, new) in changed.items()
    )


def _stronger(checkpointing: str, spec: RunSpec, hardware: Hardware) -> tuple[str, ...]:
    """The kinds of checkpointing that keep less. Where device and host share one memory nothing can go to the host, and
    MLX knows one kind only."""
    kinds = ("selective", "full", "offload")
    stronger = kinds[kinds.index(checkpointing) + 1 :] if checkpointing in kinds else kinds
    if spec.launch.backend == "mlx" or hardware.device == "mlx":
        return tuple(kind for kind in stronger if kind == "full")
    return stronger if hardware.device == "cuda" else tuple(kind for kind in stronger if kind != "offload")
