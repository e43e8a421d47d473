"""Records of a run's log as sentences for a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.events.summary import CUT_OFF
from tui.text import format as fmt

Description = tuple[str, str]
"""A sentence and its tone: plain, good, warn or bad."""

_PHASE_TONES = {
    "finished": "good",
    "failed": "bad",
    "needs-attention": "bad",
    "recovering": "warn",
    "stopped": "warn",
    "paused": "warn",
}


def describe(record: dict[str, Any]) -> Description | None:
    """The sentence for one record, or None for those that only feed the charts."""
    describer = _DESCRIBERS.get(str(record.get("kind")))
    return describer(record) if describer else None


def describe_cut_off(summaries: Sequence[dict[str, Any]]) -> str:
    """Which runs were cut off and why, as half a sentence; nothing where none was."""
    cut = [summary for summary in summaries if summary.get("phase") == CUT_OFF]
    if not cut:
        return ""
    reasons = {summary.get("reason") for summary in cut}
    why = f": {reasons.pop()}" if len(reasons) == 1 else ""
    name = str(cut[0].get("name") or cut[0]["id"])
    return f"{name} was cut off{why}" if len(cut) == 1 else f"{len(cut)} runs were cut off{why}"


def describe_outcome(summary: dict[str, Any]) -> str:
    """How a run ended, or how far it is: its phase, step, losses and reason."""
    text = f"{summary['phase']} at step {summary['step'] or 0}"
    if summary["loss"] is not None:
        text += f", loss {fmt.fixed(summary['loss'], 4)}"
    if summary["val_loss"] is not None:
        text += f", validation loss {fmt.fixed(summary['val_loss'], 4)}"
    if summary["reason"]:
        text += f": {summary['reason']}"
    return text


def describe_mark(record: dict[str, Any]) -> str:
    """What a mark on a chart stands for, in a few words."""
    kind = record["kind"]
    if kind == "edit":
        return f"edit {describe_changes(record.get('changed') or {})}"
    if kind == "oom":
        return f"out of memory in {record.get('where')}"
    return {
        "checkpoint": "checkpoint",
        "start": f"attempt {record.get('attempt')} begins",
        "rewind": "rewound",
        "alert": "not finite",
    }[kind]


def _state(record: dict[str, Any]) -> Description:
    phase = str(record.get("phase"))
    reason = record.get("reason")
    return (f"{phase}: {reason}" if reason else phase), _PHASE_TONES.get(phase, "plain")


def _start(record: dict[str, Any]) -> Description:
    resumed = record.get("resumed_from")
    parts = [f"attempt {record.get('attempt', 1)} on {record.get('device') or 'an unnamed device'}"]
    if record.get("params"):
        parts.append(f"{fmt.count(record['params'])} parameters")
    parts.append("from the beginning" if resumed is None else f"from the checkpoint of step {fmt.exact(resumed)}")
    return ", ".join(parts), "plain"


def describe_changes(changed: dict[str, Any]) -> str:
    """``{"micro": [8, 4]}`` as ``micro 8 → 4``."""
    return ", ".join(f"{key} {old} → {new}" for key, (old, new) in changed.items()) or "nothing"


def _edit(record: dict[str, Any]) -> Description:
    changed = describe_changes(record.get("changed") or {})
    if record.get("ok"):
        return f"edit at step {fmt.exact(record.get('step'))}: {changed}", "good"
    return f"edit refused: {changed}: {record.get('why')}", "warn"


def _oom(record: dict[str, Any]) -> Description:
    wanted = f", wanted {fmt.size(record['wanted'])}" if record.get("wanted") else ""
    action = f": {record['action']}" if record.get("action") else ""
    return f"out of memory in {record.get('where')}{wanted}{action}", "warn"


def _checkpoint(record: dict[str, Any]) -> Description:
    step = fmt.exact(record.get("step"))
    if record.get("ok"):
        took = f"{fmt.size(record.get('bytes'))} in {fmt.duration(record.get('seconds'))}"
        return f"checkpoint of step {step}: {took}", "good"
    return f"checkpoint of step {step} failed: {record.get('why')}", "bad"


def _rewind(record: dict[str, Any]) -> Description:
    why = f": {record['why']}" if record.get("why") else ""
    return f"goes back to the checkpoint of step {fmt.exact(record.get('step'))}{why}", "warn"


def describe_parts(held: dict[str, Any]) -> str:
    """``{"weights": …}`` as ``weights 1.20 GiB · …``, the largest first."""
    known = sorted(((name, size) for name, size in held.items() if isinstance(size, int | float)), key=lambda p: -p[1])
    return " · ".join(f"{name.replace('_', ' ')} {fmt.size(size)}" for name, size in known if size > 0)


def _memory(record: dict[str, Any]) -> Description:
    measured = record.get("measured") or {}
    took = ", ".join(f"{where} {fmt.size(measured[where])}" for where in ("device", "host") if measured.get(where))
    held = [size for size in (record.get("parts") or {}).values() if isinstance(size, int | float)]
    forecast = f"memory by forecast {fmt.size(sum(held))}" if held else "memory"
    told = f"{forecast}, measured {took}" if took else f"{forecast}: {describe_parts(record.get('parts') or {})}"
    return (told if held or took else "memory: no forecast"), "plain"


def _alert(record: dict[str, Any]) -> Description:
    return f"{record.get('what')}: {record.get('text')}", "warn"


def _exit(record: dict[str, Any]) -> Description:
    why, code, signal = record.get("why"), record.get("code"), record.get("signal")
    fact = str(signal) if signal else f"exit code {code}"
    text = f"{why} ({fact})" if why and fact not in why else why or fact
    return f"trainer ended: {text}", "plain" if code == 0 else "bad"


def _log(record: dict[str, Any]) -> Description:
    rank = record.get("rank")
    tone = {"error": "bad", "warning": "warn", "warn": "warn"}.get(str(record.get("level")), "plain")
    return (f"rank {rank}: " if rank else "") + str(record.get("text")), tone


def _val(record: dict[str, Any]) -> Description:
    bucket = f" on {record['bucket']}" if record.get("bucket") else ""
    return (
        f"validation at step {fmt.exact(record.get('step'))}{bucket}: loss {fmt.loss(record.get('loss'))}",
        "plain",
    )


def _link(record: dict[str, Any]) -> Description:
    if record.get("up"):
        return "connected again", "good"
    return "connection lost; what was received stays, trying again", "warn"


_DESCRIBERS = {
    "state": _state,
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
