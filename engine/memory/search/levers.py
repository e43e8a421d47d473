"""Lists changes to a spec that make it faster or smaller on a machine, with what each saves and costs.

They come from the search: the changes of one setting alone, and those of several that nothing else beats.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine.memory.calibration import PastRun
from engine.memory.hardware import Hardware
from engine.memory.headroom import FITS, OVER, TIGHT
from engine.memory.search.combinations import Combination, combinations, current
from engine.memory.search.micro import largest, micro_divisors, with_micro
from engine.memory.search.search import SAME_SPEED, Candidate, Search
from profiles.spec import RunSpec

# When a lever applies: at the next step; with --unlock, because it changes the tokens per step; at a restart.
LIVE, UNLOCK, RESTART = "live", "unlock", "restart"
_TOGETHER = 4  # levers of several settings that are listed
MIN_CONTEXT = 256  # tokens; no lever makes the context shorter
_KEYS = ("batch.micro", "batch.accum", "batch.context", "memory.loss", "memory.checkpointing", "memory.strategy")


@dataclass(frozen=True, slots=True)
class Lever:
    """Changes of the spec that belong together.

    ``device_saved`` and ``host_saved`` are bytes (negative: needs more). ``speed`` is the predicted relative change of
    tokens/s (-0.02 is 2% slower): both sides by the model alone, because measurements of two runs also differ by what
    else the machine did. ``basis`` says which speeds of the machine that assumes.
    """

    change: str
    changed: dict[str, list[Any]]  # dotted key: [old, new]
    spec: RunSpec
    device_saved: int
    host_saved: int
    speed: float
    basis: str
    when: str  # LIVE, UNLOCK or RESTART
    note: str  # how the arithmetic of a step changes, and what has to be installed; empty where neither
    fits: bool
    tight: bool  # fits, but the free memory left may be less than the forecast's error
    allowed: bool  # whether "auto" could choose it: it is installed and within memory.allow


def levers(spec: RunSpec, hardware: Hardware, past_runs: Sequence[PastRun] = ()) -> list[Lever]:
    """Return the changes that make ``spec`` faster or smaller and fit, those that keep the arithmetic first, by speed.

    Where ``spec`` does not fit, those that do come first.
    """
    search = Search(hardware, past_runs)
    now = current(spec, hardware)
    before = search.candidate(spec, now)
    found: dict[str, Lever] = {}
    for candidate in _candidates(spec, now, search):
        lever = _lever(before, candidate)
        smaller, faster = max(lever.device_saved, lever.host_saved) > 0, lever.speed > 1 - SAME_SPEED
        useful = smaller or faster if candidate.state != OVER else smaller and before.state == OVER
        if lever.changed and useful:
            found.setdefault(lever.change, lever)
    together = [one for one in found.values() if len(_settings(one)) > 1 and not _beaten(one, found.values())]
    together.sort(key=lambda one: (not one.fits, not one.allowed, one.tight, -one.speed))
    kept = [one for one in found.values() if len(_settings(one)) == 1] + together[:_TOGETHER]
    smaller_first = before.state == OVER
    return sorted(
        kept,
        key=lambda one: (
            smaller_first and not one.fits,
            bool(one.note),
            -round(one.speed, 3),
            -one.device_saved - one.host_saved,
        ),
    )


def _candidates(spec: RunSpec, now: Combination, search: Search) -> Iterator[Candidate]:
    """Yield what differs from ``spec`` in one setting, then the best micro-batch of every combination."""
    for micro in _micros(spec, now, search):
        yield search.candidate(with_micro(spec, micro), now)
    for other in combinations(spec, search.hardware, fixed=False):
        differing = {name for name in Combination.__slots__ if getattr(other, name) != getattr(now, name)}
        # bf16 weights and where the states lie are one decision: which memory the optimizer takes.
        if len(differing - {"precision"}) == 1 or differing == {"precision"}:
            yield search.candidate(spec, other)
    yield from search.all_ways(spec)
    if spec.batch.context >= 2 * MIN_CONTEXT:
        half = replace(spec, batch=replace(spec.batch, context=spec.batch.context // 2))
        yield search.candidate(half, now)


def _micros(spec: RunSpec, now: Combination, search: Search) -> list[int]:
    """Return the next two smaller micro-batches, the largest that fits, and the largest with room to spare."""

    def state(micro: int) -> str:
        return search.candidate(with_micro(spec, micro), now).state

    micros = micro_divisors(spec)
    smaller = [n for n in micros if n < spec.batch.micro]
    fitting = largest(smaller, lambda n: state(n) in (FITS, TIGHT))
    comfortable = largest(micros, lambda n: state(n) == FITS)
    found = [*reversed(smaller[-2:]), *(n for n in (fitting, comfortable) if n is not None)]
    return [n for n in dict.fromkeys(found) if n != spec.batch.micro]


def _lever(before: Candidate, after: Candidate) -> Lever:
    old, new = before.spec, after.spec
    changed: dict[str, list[Any]] = {}
    for key in (*_KEYS, "train.precision"):
        values = [_value(spec, key) for spec in (old, new)]
        if values[0] != values[1] and not (key == "batch.accum" and old.batch.micro == new.batch.micro):
            changed[key] = values
    when = (
        UNLOCK if "batch.context" in changed else LIVE if changed.keys() <= {"batch.micro", "batch.accum"} else RESTART
    )
    numerics = ", ".join(one for one in after.combination.numerics if one not in before.combination.numerics)
    missing = after.forbidden if "not installed" in after.forbidden else ""
    unlocks = "changes tokens per step" if when == UNLOCK else ""
    return Lever(
        change=_describe(changed),
        changed=changed,
        spec=new,
        device_saved=before.forecast.device_total - after.forecast.device_total,
        host_saved=before.forecast.host_total - after.forecast.host_total,
        speed=after.rate.plain / before.rate.plain - 1,
        basis=after.rate.source,
        when=when,
        note="; ".join(filter(None, (numerics, missing, unlocks))),
        fits=after.state != OVER,
        tight=after.state == TIGHT,
        allowed=not after.forbidden,
    )


def _settings(lever: Lever) -> set[str]:
    """Return what a lever changes, with what follows from one another counted once."""
    keys = {"batch.micro" if key == "batch.accum" else key for key in lever.changed}
    return {"memory.strategy" if key == "train.precision" else key for key in keys}


def _beaten(lever: Lever, others: Iterable[Lever]) -> bool:
    """Return whether another lever is at least as fast and as small, with no more cost in numerics, and no harder."""
    return any(
        other is not lever
        and (not other.note or other.note == lever.note)
        and other.fits >= lever.fits
        and other.tight <= lever.tight
        and other.speed >= lever.speed - (1 - SAME_SPEED) / 2
        and other.device_saved >= lever.device_saved
        and other.host_saved >= lever.host_saved
        and (other.speed, other.device_saved, other.host_saved) != (lever.speed, lever.device_saved, lever.host_saved)
        for other in others
    )


def _value(spec: RunSpec, key: str) -> Any:
    table, _, name = key.partition(".")
    return spec.accum if key == "batch.accum" else getattr(getattr(spec, table), name)


def _describe(changed: dict[str, list[Any]]) -> str:
    """Return ``micro 12→6, accum 8→16``; of text values only the new one."""
    return ", ".join(
        f"{key.partition('.')[2]} {f'{old}→' if isinstance(old, int) else ''}{new}"
        for key, (old, new) in changed.items()
    )
