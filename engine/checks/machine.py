"""The machine: its terminal multiplexer and its memory."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

from engine.checks.finding import Finding
from engine.memory.hardware import detect_hardware
from engine.runs.store import RunStore

LITTLE_RAM = 1 << 30  # bytes: torch alone takes about half of it


def tmux(store: RunStore) -> Iterator[Finding]:
    if shutil.which("tmux") is None:
        yield Finding("ok", "tmux", "not installed; runs outlive ssh without it, only the screen does not")
        return
    told = subprocess.run(["tmux", "-V"], capture_output=True, text=True, timeout=0.5, stdin=subprocess.DEVNULL)
    yield Finding("ok", "tmux", told.stdout.strip().removeprefix("tmux ") or "there, of an unknown version")


def memory(store: RunStore) -> Iterator[Finding]:
    """Free and total, in the units of ``mla-tui plan``."""
    here = detect_hardware()
    ram = f"{_gib(here.ram_free)} of {_gib(here.ram_total)} GiB free"
    if here.ram_free < LITTLE_RAM:
        yield Finding("bad", "RAM", ram, "end what holds it: the kernel kills what takes more")
    else:
        yield Finding("ok", "RAM", ram)
    if here.device != "cuda" or not here.device_total or here.device_free is None:
        return
    card = f"{_gib(here.device_free)} of {_gib(here.device_total)} GiB free on {here.name}"
    if here.device_free < here.device_total * 0.8:
        yield Finding("warn", "VRAM", card, "see what holds it with: nvidia-smi")
    else:
        yield Finding("ok", "VRAM", card)


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f}"
