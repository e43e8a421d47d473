"""Proposes a profile for a machine: the built-in one that fits it, with what the search chose, and why, as comments."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.memory.calibration import PastRun
from engine.memory.hardware import Hardware
from engine.memory.headroom import OVER
from engine.memory.search.search import Candidate, Search
from profiles import registry
from profiles.errors import UserError
from profiles.printable import one_line

GIB = 1 << 30
# The first that fits is proposed.
_BY_DEVICE = {
    "cuda": ("gpu_fast", "pretrain_5080", "cpu_demo"),
    "mlx": ("mac_m4_pro", "cpu_demo"),
    "cpu": ("cpu_demo",),
}


@dataclass(frozen=True, slots=True)
class ProposedProfile:
    """``text`` is the TOML of a profile that extends the built-in ``base``."""

    base: str
    text: str


def propose(hardware: Hardware, past_runs: Sequence[PastRun]) -> ProposedProfile:
    """Return the profile for ``hardware``. Raise ``UserError`` where no built-in profile fits into its memory."""
    search = Search(hardware, past_runs)
    for name in _BY_DEVICE[hardware.device]:
        best = search.chosen_from(registry.load(name))[0]
        if best.state != OVER and not best.forbidden:
            return ProposedProfile(name, _text(name, best, hardware))
    raise UserError(
        f"init: no profile fits into {hardware.ram_free / GIB:.1f} GiB of free RAM; free some, or name a smaller model"
        " in a profile of your own"
    )


def write_profile(text: str, name: str, *, replace: bool = False) -> Path:
    """Write the user's profile ``name``. Raise ``UserError`` where there is one already, or it cannot be written."""
    folder = registry.user_folder()
    path = folder / f"{name}.toml"
    if name in registry.BUILTIN_ORDER:
        raise UserError(f"--name {name}: is a built-in profile; choose another name")
    if path.exists() and not replace:
        raise UserError(f"{path}: exists; choose another --name, or replace it with --force")
    temporary = folder / f".{name}.{os.getpid()}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; make it writable, or set XDG_CONFIG_HOME") from None
    return path


def _text(name: str, best: Candidate, hardware: Hardware) -> str:
    memories = f"{best.forecast.host_total / GIB:.1f} of {hardware.ram_free / GIB:.1f} GiB of free RAM"
    if hardware.device_free and hardware.device == "cuda":
        memories = (
            f"{best.forecast.device_total / GIB:.1f} of {hardware.device_free / GIB:.1f} GiB of the GPU, {memories}"
        )
    numerics = f"Its cost in numerics: {', '.join(best.combination.numerics)}." if best.combination.numerics else ""
    spec, one = best.spec, best.combination
    lines = [
        f"# For {one_line(hardware.name)}.",
        f"# Predicted: {memories}, about {best.rate.tok_s:.0f} tokens/s ({best.rate.basis}).",
        *([f"# {numerics}"] if numerics else []),
        '# Any of these may be "auto": then each launch chooses for the memory that is free by then.',
        f'description = "{registry.load(name).model.name} on this machine"',
        f'extends = "{name}"',
        "",
        "[batch]",
        f"micro = {spec.batch.micro}  # sequences at once; a step has {spec.batch.sequences}, whatever this is",
        "",
        "[memory]",
        f'strategy = "{one.strategy}"  # where the optimizer keeps its states: device, states8bit, offload',
        f'checkpointing = "{one.checkpointing}"  # what backward recomputes: none, selective, full, offload',
        "",
        "[train]",
        f'precision = "{one.precision}"  # fp32, bf16, bf16_sr (bf16 weights with stochastic rounding)',
        "",
    ]
    return "\n".join(lines)
