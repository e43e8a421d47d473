"""Proposes a profile for a machine: the built-in one that fits it, with what the search chose, and why, as comments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.memory.calibration import PastRun
from engine.memory.hardware import Hardware
from engine.memory.headroom import OVER
from engine.memory.search.search import Candidate, Search
from profiles import registry
from profiles.errors import UserError
from profiles.user_profile import profile_text

GIB = 1 << 30
# The first that fits is proposed.
_BY_DEVICE = {
    "cuda": ("gpu_fast", "pretrain_5080", "cpu_demo"),
    "mlx": ("mac_m4_pro", "cpu_demo"),
    "cpu": ("cpu_demo",),
}


@dataclass(frozen=True, slots=True)
class ProposedProfile:
    """``text`` is the TOML of a profile that extends the built-in ``base`` and runs as ``way``."""

    base: str
    way: Candidate
    text: str


def propose(hardware: Hardware, past_runs: Sequence[PastRun]) -> ProposedProfile:
    """Return the profile for ``hardware``. Raise ``UserError`` where no built-in profile fits into its memory."""
    search = Search(hardware, past_runs)
    for name in _BY_DEVICE[hardware.device]:
        best = search.chosen_from(registry.load(name))[0]
        if best.state != OVER and not best.forbidden:
            return ProposedProfile(name, best, _text(name, best, hardware))
    raise UserError(
        f"init: no profile fits into {hardware.ram_free / GIB:.1f} GiB of free RAM; free some, or name a smaller model"
        " in a profile of your own"
    )


def way_keys(way: Candidate) -> dict[str, Any]:
    """Return the settings, by dotted key, that make a profile run as ``way``."""
    one = way.combination
    return {
        "batch.micro": way.spec.batch.micro,
        "memory.strategy": one.strategy,
        "memory.checkpointing": one.checkpointing,
        "memory.loss": one.loss,
        "train.precision": one.precision,
    }


def _text(name: str, best: Candidate, hardware: Hardware) -> str:
    memories = f"{best.forecast.host_total / GIB:.1f} of {hardware.ram_free / GIB:.1f} GiB of free RAM"
    if hardware.device_free and hardware.device == "cuda":
        memories = (
            f"{best.forecast.device_total / GIB:.1f} of {hardware.device_free / GIB:.1f} GiB of the GPU, {memories}"
        )
    numerics = f"Its cost in numerics: {', '.join(best.combination.numerics)}." if best.combination.numerics else ""
    comments = [
        f"For {hardware.name}.",
        f"Predicted: {memories}, about {best.rate.tok_s:.0f} tokens/s ({best.rate.basis}).",
        *([numerics] if numerics else []),
        'Any of these may be "auto": then each launch chooses for the memory that is free by then.',
    ]
    return profile_text(comments, f"{best.spec.model.name} on this machine", name, way_keys(best))
