"""Describes the records of a run's log in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.events.run_dir import is_on_other_host
from engine.events.summary import CUT_OFF, DAMAGED, INACTIVE
from profiles.printable import one_line
from tui.text import format as fmt

LONGEST_EVENT = 8000  # characters; a reason may quote a command and what it printed

Description = tuple[str, str]
"""A sentence, and its tone: plain, good, warn or bad."""

_PHASE_TONES = {
    "finished": "good",
    "failed": "bad",
    CUT_OFF: "bad",
    DAMAGED: "bad",
    "needs-attention": "bad",
    "recovering": "warn",
    "stopped": "warn",
    "paused": "warn",
}


def describe(record: dict[str, Any]) -> Description | None:
    """Return the sentence for a record; None for a record that only feeds the charts."""
    describer = _DESCRIBERS.get(str(record.get("kind")))
    if describer is None:
        return None
    text, tone = describer(record)
    return one_line(text, LONGEST_EVENT), tone


def describe_cut_off(summaries: Sequence[dict[str, Any]]) -> str:
    """Return which runs were cut off, and why; empty if none was."""
    cut = [summary for summary in summaries if summary.get("phase") == CUT_OFF]
    if not cut:
        return ""
    reasons = {summary.get("reason") for summary in cut}
    why = f": {reasons.pop()}" if len(reasons) == 1 else ""
    name = str(cut[0].get("name") or cut[0]["id"])
    return one_line(f"{name} was cut off{why}" if len(cut) == 1 else f"{len(cut)} runs were cut off{why}")


def is_working(summary: dict[str, Any]) -> bool:
    """Return whether a process on this host works on the run: only then its speed is one of now."""
    return summary.get("phase") not in INACTIVE and not is_on_other_host(summary)


def phase_name(summary: dict[str, Any]) -> str:
    """Return the phase of a run in few cells; ``seen 17:02`` for an active run on another host, which may have died."""
    if is_on_other_host(summary) and summary.get("phase") not in INACTIVE:
        return f"seen {fmt.timestamp(summary.get('seen'))}"
    return str(summary.get("phase") or "")


def describe_outcome(summary: dict[str, Any]) -> str:
    """Return the phase, step, losses and reason of a run, for example when it ended."""
    text = f"{summary['phase']} at step {summary['step'] or 0}"
    if summary["loss"] is not None:
        text += f", loss {fmt.fixed(summary['loss'], 4)}"
    if summary["val_loss"] is not None:
        text += f", validation loss {fmt.fixed(summary['val_loss'], 4)}"
    if summary["reason"]:
        text += f": {summary['reason']}"
    return one_line(text, LONGEST_EVENT)


def describe_mark(record: dict[str, Any]) -> str:
    """Return what a mark on a chart means, in a few words."""
    kind = record["kind"]
    if kind == "edit":
        return f"edit {describe_changes(record.get('changed') or {})}"
    if kind == "oom":
        return f"out of memory ({record.get('where')})"
    return {
        "checkpoint": "checkpoint",
        "start": f"attempt {record.get('attempt')} starts",
        "rewind": "rewind",
        "alert": "not finite",
    }[kind]


def _state(record: dict[str, Any]) -> Description:
    phase = str(record.get("phase"))
    reason = record.get("reason")
    return (f"{phase}: {reason}" if reason else phase), _PHASE_TONES.get(phase, "plain")


def _start(record: dict[str, Any]) -> Description:
    resumed = record.get("resumed_from")
    parts = [f"attempt {record.get('attempt', 1)} on {record.get('device') or 'an unknown device'}"]
    if record.get("params"):
        parts.append(f"{fmt.count(record['params'])} parameters")
    parts.append("from scratch" if resumed is None else f"from the checkpoint at step {fmt.exact(resumed)}")
    return ", ".join(parts), "plain"


def describe_changes(changed: dict[str, Any]) -> str:
    """Return ``{"micro": [8, 4]}`` as ``micro 8 → 4``."""
    return ", ".join(f"{key} {old} → {new}" for key, (old, new) in changed.items()) or "nothing"


def _edit(record: dict[str, Any]) -> Description:
    changed = describe_changes(record.get("changed") or {})
    if record.get("ok"):
        return f"edit at step {fmt.exact(record.get('step'))}: {changed}", "good"
    return f"edit refused: {changed}: {record.get('why')}", "warn"


def _oom(record: dict[str, Any]) -> Description:
    wanted = f", tried to allocate {fmt.size(record['wanted'])}" if record.get("wanted") else ""
    action = f": {record['action']}" if record.get("action") else ""
    return f"out of memory ({record.get('where')}){wanted}{action}", "warn"


def _checkpoint(record: dict[str, Any]) -> Description:
    step = fmt.exact(record.get("step"))
    if record.get("ok"):
        cost = f"{fmt.size(record.get('bytes'))} in {fmt.duration(record.get('seconds'))}"
        return f"checkpoint at step {step}: {cost}", "good"
    return f"checkpoint at step {step} failed: {record.get('why')}", "bad"


def _rewind(record: dict[str, Any]) -> Description:
    why = f": {record['why']}" if record.get("why") else ""
    return f"rewind to the checkpoint at step {fmt.exact(record.get('step'))}{why}", "warn"


def describe_parts(parts: dict[str, Any]) -> str:
    """Return ``{"weights": …}`` as ``weights 1.20 GiB · …``, largest first."""
    known = sorted(((name, size) for name, size in parts.items() if isinstance(size, int | float)), key=lambda p: -p[1])
    return " · ".join(f"{name.replace('_', ' ')} {fmt.size(size)}" for name, size in known if size > 0)


def _memory(record: dict[str, Any]) -> Description:
    measured = record.get("measured") or {}
    peaks = ", ".join(f"{where} {fmt.size(measured[where])}" for where in ("device", "host") if measured.get(where))
    parts = record.get("parts") or {}
    sizes = [size for size in parts.values() if isinstance(size, int | float)]
    predicted = f"predicted memory {fmt.size(sum(sizes))}"
    if peaks:
        return (f"{predicted}, measured {peaks}" if sizes else f"memory measured: {peaks}"), "plain"
    return (f"{predicted}: {describe_parts(parts)}" if sizes else "memory: no prediction"), "plain"


def _alert(record: dict[str, Any]) -> Description:
    return f"{record.get('what')}: {record.get('text')}", "warn"


def _exit(record: dict[str, Any]) -> Description:
    why, code, signal = record.get("why"), record.get("code"), record.get("signal")
    fact = str(signal) if signal else "" if code is None else f"exit code {code}"
    reason = f"{why} ({fact})" if why and fact not in why else why or fact or "cause unknown"
    return f"trainer exited: {reason}", "plain" if code == 0 else "bad"


def _log(record: dict[str, Any]) -> Description:
    rank = record.get("rank")
    tone = {"error": "bad", "warning": "warn", "warn": "warn"}.get(str(record.get("level")), "plain")
    return (f"rank {rank}: " if rank else "") + str(record.get("text")), tone


def _val(record: dict[str, Any]) -> Description:
    bucket = f" on {record['bucket']}" if record.get("bucket") else ""
    sources = ", ".join(f"{source} {fmt.loss(loss)}" for source, loss in (record.get("sources") or {}).items())
    text = f"validation at step {fmt.exact(record.get('step'))}{bucket}: loss {fmt.loss(record.get('loss'))}"
    return text + (f" ({sources})" if sources else ""), "plain"


def _link(record: dict[str, Any]) -> Description:
    if record.get("up"):
        return "reconnected", "good"
    return "connection lost; reconnecting", "warn"


_DESCRIBERS = {
    "state": _state,
    CUT_OFF: _state,
    "start": _start,
    "edit": _edit,
    "oom": _oom,
    "checkpoint": _checkpoint,
    "alert": _alert,
    "exit": _exit,
    "rewind": _rewind,
    "memory": _memory,
    "log": _log,
    "val": _val,
    "link": _link,
}
