"""Checks tmux, the machine's memory and what else keeps its processors busy."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

from engine.checks.finding import Finding
from engine.host.cores import cores
from engine.memory.hardware import detect_hardware
from engine.runs.store import RunStore

BUSY = 1.5  # waiting programs for each processor; a run of ours alone is about one
LOW_RAM = 1 << 30  # bytes; torch alone takes about half of it


def tmux(store: RunStore) -> Iterator[Finding]:
    if shutil.which("tmux") is None:
        yield Finding("ok", "tmux", "not installed; runs survive a lost ssh connection without it, the app does not")
        return
    done = subprocess.run(["tmux", "-V"], capture_output=True, text=True, timeout=0.5, stdin=subprocess.DEVNULL)
    yield Finding("ok", "tmux", done.stdout.strip().removeprefix("tmux ") or "installed, version unknown")


def memory(store: RunStore) -> Iterator[Finding]:
    """Free and total memory in GiB, as in ``mla-tui plan``."""
    hardware = detect_hardware()
    ram = f"{_gib(hardware.ram_free)} of {_gib(hardware.ram_total)} GiB free"
    if hardware.ram_free < LOW_RAM:
        yield Finding("error", "RAM", ram, "end other programs: the kernel kills processes when memory runs out")
    else:
        yield Finding("ok", "RAM", ram)
    if hardware.device != "cuda" or not hardware.device_total or hardware.device_free is None:
        return
    vram = f"{_gib(hardware.device_free)} of {_gib(hardware.device_total)} GiB free on {hardware.name}"
    if hardware.device_free < hardware.device_total * 0.8:
        yield Finding("warn", "VRAM", vram, "see what uses it with: nvidia-smi")
    else:
        yield Finding("ok", "VRAM", vram)


def load(store: RunStore) -> Iterator[Finding]:
    """Of the last minute."""
    waiting, processors = os.getloadavg()[0], cores()
    message = f"load {waiting:.1f} on {processors} core{'s' * (processors > 1)}"
    if waiting > BUSY * processors:
        yield Finding("warn", "CPU", message, "end other programs: beside them a run on the CPU waits for its threads")
    else:
        yield Finding("ok", "CPU", message)


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f}"
