"""Ways to make a run smaller, cheapest first."""

from __future__ import annotations

from dataclasses import dataclass, replace

from engine.memory.forecast import forecast
from engine.memory.hardware import Hardware
from profiles.spec import RunSpec


@dataclass(frozen=True, slots=True)
class Lever:
    """One change and the bytes it would save."""

    change: str
    spec: RunSpec
    device: int
    host: int


def levers(spec: RunSpec, hardware: Hardware) -> list[Lever]:
    """What can be changed without changing what a step is, in the order of its cost in tokens a second.

    A smaller micro only re-groups the same work, a fused loss only the head's; selective checkpointing computes what
    is cheap in a block twice, full everything; offload also waits for the host.
    """
    ways: list[tuple[str, RunSpec]] = []
    smaller = [n for n in range(spec.batch.micro - 1, 0, -1) if spec.batch.sequences % (n * spec.ranks) == 0]
    for micro in smaller[:2]:
        other = replace(spec, batch=replace(spec.batch, micro=micro))
        ways.append((f"micro {spec.batch.micro}→{micro}, accum {spec.accum}→{other.accum}", other))
    if spec.memory.loss == "plain":
        ways.append(("memory.loss fused", replace(spec, memory=replace(spec.memory, loss="fused"))))
    for kind in _stronger(spec.memory.checkpointing, hardware):
        ways.append((f"memory.checkpointing {kind}", replace(spec, memory=replace(spec.memory, checkpointing=kind))))
    now = forecast(spec, hardware)
    found = []
    for change, other in ways:
        then = forecast(other, hardware)
        lever = Lever(change, other, now.device_total - then.device_total, now.host_total - then.host_total)
        if lever.device > 0 or lever.host > 0:
            found.append(lever)
    return found


def _stronger(checkpointing: str, hardware: Hardware) -> tuple[str, ...]:
    """The kinds of checkpointing that keep less. Where device and host share one memory nothing can go to the host."""
    kinds = ("selective", "full", "offload")
    stronger = kinds[kinds.index(checkpointing) + 1 :] if checkpointing in kinds else kinds
    return stronger if hardware.device == "cuda" else tuple(kind for kind in stronger if kind != "offload")
