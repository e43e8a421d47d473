"""Reads which instruction sets this machine's CPU has, and how fast torch multiplies in bf16 with them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

# Of fp32's speed. With AVX-512 alone torch converts within its kernels; without, it multiplies value by value
# (measured on an EPYC of 2021 with AVX2: 1/17 to 1/70).
_UNITS, _CONVERTED, _ONE_BY_ONE = 1.0, 1 / 4, 1 / 40


@cache
def instruction_sets() -> str:
    """Return Linux's line about them, such as ``flags : fpu … avx2``; empty on other systems."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def bf16_speed() -> float:
    """Return how fast products of matrices in bf16 are on the CPU, as a fraction of those in fp32; 1 where unknown."""
    names = set(instruction_sets().split())
    if not names or names & {"avx512_bf16", "amx_bf16", "bf16"}:
        return _UNITS
    return _CONVERTED if "avx512bw" in names else _ONE_BY_ONE
