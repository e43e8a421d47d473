"""Describes the events of a run's log in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.events.marks import Mark
from engine.events.phases import FINISHED, PAUSED, RECOVERING, STOPPED, phase_of
from engine.events.types import (
    Alert,
    Checkpoint,
    CutOff,
    Edit,
    Eval,
    Event,
    Exit,
    Link,
    Log,
    Memory,
    Oom,
    Rewind,
    Sample,
    Start,
    State,
    Val,
)
from profiles.printable import one_line
from tui.text import format as fmt
from tui.text.run_text import LONGEST, bits_per_byte

Description = tuple[str, str]
"""A sentence, and its tone: plain, good, warn or bad."""


def describe(event: Event) -> Description | None:
    """Return the sentence for an event; None for an event that only feeds the charts."""
    found = _describe(event)
    return None if found is None else (one_line(found[0], LONGEST), found[1])


def _describe(event: Event) -> Description | None:
    match event:
        case State() | CutOff():
            return f"{event.phase}: {event.reason}" if event.reason else event.phase, phase_tone(event.phase)
        case Start():
            return _start(event), "plain"
        case Edit():
            return _edit(event)
        case Oom():
            wanted = f", tried to allocate {fmt.size(event.wanted)}" if event.wanted else ""
            return f"out of memory ({event.where}){wanted}" + (f": {event.action}" if event.action else ""), "warn"
        case Checkpoint():
            return _checkpoint(event)
        case Rewind():
            why = f": {event.why}" if event.why else ""
            return f"rewind to the checkpoint at step {fmt.exact(event.step)}{why}", "warn"
        case Memory():
            return _memory(event), "plain"
        case Alert():
            return f"{event.what}: {event.text}", "warn"
        case Exit():
            return _exit(event)
        case Log():
            tone = {"error": "bad", "warning": "warn", "warn": "warn"}.get(event.level or "", "plain")
            return (f"rank {event.rank}: " if event.rank else "") + str(event.text), tone
        case Val():
            return _val(event), "plain"
        case Eval():
            return _eval(event), "plain"
        case Sample():
            cut = " (cut: out of time)" if event.cut else ""
            return f"sample at step {fmt.exact(event.step)}: {event.prompt}{event.text}{cut}", "plain"
        case Link():
            return ("reconnected", "good") if event.up else ("connection lost; reconnecting", "warn")
    return None


def phase_tone(phase: str) -> str:
    """Return the tone of a phase: good, warn, bad or plain."""
    if phase == FINISHED:
        return "good"
    if phase in (RECOVERING, STOPPED, PAUSED):
        return "warn"
    return "bad" if phase_of(phase).needs_attention else "plain"


def describe_mark(mark: Mark) -> str:
    """Return what a mark on a chart means, in a few words."""
    if mark.kind == "edit":
        return f"edit {describe_changes(mark.changed)}"
    if mark.kind == "oom":
        return f"out of memory ({mark.where})"
    if mark.kind == "start":
        return f"attempt {mark.attempt} starts"
    return {"checkpoint": "checkpoint", "rewind": "rewind", "alert": "not finite"}[mark.kind]


def describe_changes(changed: Mapping[str, tuple[Any, Any]]) -> str:
    """Return ``{"micro": (8, 4)}`` as ``micro 8 → 4``."""
    return ", ".join(f"{key} {old} → {new}" for key, (old, new) in changed.items()) or "nothing"


def describe_parts(parts: Mapping[str, float]) -> str:
    """Return ``{"weights": …}`` as ``weights 1.20 GiB · …``, largest first."""
    known = sorted(parts.items(), key=lambda part: -part[1])
    return " · ".join(f"{name.replace('_', ' ')} {fmt.size(size)}" for name, size in known if size > 0)


def _start(event: Start) -> str:
    parts = [f"attempt {event.attempt or 1} on {event.device or 'an unknown device'}"]
    if event.params:
        parts.append(f"{fmt.count(event.params)} parameters")
    resumed = event.resumed_from
    parts.append("from scratch" if resumed is None else f"from the checkpoint at step {fmt.exact(resumed)}")
    if event.data is not None and event.data.new_segment:
        parts.append("with other data than before")
    if event.peak_flop_s:
        parts.append(f"{event.peak_source} peak {fmt.flop_s(event.peak_flop_s)}")
    return ", ".join(parts)


def _eval(event: Eval) -> str:
    """Return the accuracy of an evaluation and of each of its files."""
    main = {name: found.get("acc_norm", found.get("acc")) for name, found in (event.tasks or {}).items()}
    parts = [f"{name} {fmt.percent(value)}" for name, value in main.items() if value is not None]
    mean = "" if event.accuracy is None else f" accuracy {fmt.percent(event.accuracy)}:"
    cut = " (cut: out of time)" if event.cut else ""
    return f"evaluation at step {fmt.exact(event.step)}:{mean} {', '.join(parts) or 'no file was scored'}{cut}"


def _edit(event: Edit) -> Description:
    if event.ok:
        return f"edit at step {fmt.exact(event.step)}: {describe_changes(event.changed)}", "good"
    return f"edit refused: {event.why}", "warn"


def _checkpoint(event: Checkpoint) -> Description:
    step = fmt.exact(event.step)
    if event.ok:
        return f"checkpoint at step {step}: {fmt.size(event.bytes)} in {fmt.duration(event.seconds)}", "good"
    return f"checkpoint at step {step} failed: {event.why}", "bad"


def _val(event: Val) -> str:
    bucket = f" on {event.bucket}" if event.bucket else ""
    loss = fmt.loss(event.loss) + bits_per_byte(event.bits_per_byte)
    text = f"validation at step {fmt.exact(event.step)}{bucket}: loss {loss}"
    sources = ", ".join(f"{source} {fmt.loss(loss)}" for source, loss in (event.sources or {}).items())
    return text + (f" ({sources})" if sources else "")


def _memory(event: Memory) -> str:
    measured, parts = event.measured, event.parts or {}
    peaks = [("device", measured.device), ("host", measured.host)] if measured else []
    peak = ", ".join(f"{where} {fmt.size(size)}" for where, size in peaks if size)
    predicted = f"predicted memory {fmt.size(sum(parts.values()))}"
    if peak:
        return f"{predicted}, measured {peak}" if parts else f"memory measured: {peak}"
    return f"{predicted}: {describe_parts(parts)}" if parts else "memory: no prediction"


def _exit(event: Exit) -> Description:
    why, code, signal = event.why, event.code, event.signal
    fact = signal or ("" if code is None else f"exit code {code}")
    reason = f"{why} ({fact})" if why and fact not in why else why or fact or "cause unknown"
    return f"trainer exited: {reason}", "plain" if code == 0 else "bad"
