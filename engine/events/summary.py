"""Keeps the summary of a run, a flat dict that each log record updates."""

from __future__ import annotations

from typing import Any

from engine.events import schema
from profiles.printable import one_line

ENDED = ("finished", "failed", "stopped")
FROM_STEP = ("step", "loss", "tok_s", "micro", "accum", "context")
TRAINING = ("running", "compiling", "saving", "paused", "stopping")  # phases in which the trainer works
RECOVERING = "recovering"  # the trainer has exited, and is started again
CUT_OFF = "cut-off"  # neither ended nor alive: the machine rebooted, or trainer and supervisor were both killed
NEEDS_ATTENTION = "needs-attention"  # the supervisor waits for something that only a user can put right
DATA_CHANGED = "--data-changed"  # of resume; in the reason of a run that needs attention because its data has changed
DAMAGED = "damaged"  # not ended, and without a spec: it can only be removed
INACTIVE = (*ENDED, CUT_OFF, DAMAGED)  # no process works on the run
_STRINGS = ("id", "name", "phase", "reason", "backend", "profile", "checkpoint", "version", "host", "boot", "data")
_SHOWN = ("name", "phase", "reason", "backend", "profile", "version", "host")
_COUNTS = ("step", "steps", "micro", "accum", "context", "attempt", "start_attempt", "at")
_CHECKS: dict[str, schema.Check] = {
    **dict.fromkeys(_STRINGS, schema.is_optional_string),
    **dict.fromkeys(_COUNTS, schema.is_optional_count),
    **dict.fromkeys(("loss", "val_loss", "tok_s", "started", "ended"), schema.is_optional_number),
    **dict.fromkeys(("supervisor", "trainer"), lambda value: is_process(value)),
    "hooks_at": schema.is_optional_count,
    **dict.fromkeys(("launched", "checkpoint_bytes"), schema.is_optional_number),
    "live": schema.is_optional_object,
    "exit": lambda last: last is None or (type(last) is dict and schema.is_optional_number(last.get("code"))),
}

_IDENTITY = ("pid", "start_ticks", "attempt")
MAX_PID = 1 << 31

HOOK_EVENTS = (
    "finished",
    "failed",
    NEEDS_ATTENTION,
    "oom",
    "nan",
    "stall",
)  # for which the user may configure a command


def update_summary(summary: dict[str, Any], record: dict[str, Any]) -> None:
    """Update ``summary`` with the next record of the log."""
    kind = record["kind"]
    summary["attempt"] = max(summary.get("attempt") or 0, record.get("attempt") or 0)
    if kind == "step":
        summary.update({key: record.get(key) for key in FROM_STEP})
    elif kind == "val":
        summary["val_loss"] = record.get("loss")
    elif kind == "checkpoint" and record.get("ok"):
        summary["checkpoint"] = record.get("path")
        summary["checkpoint_bytes"] = record.get("bytes")
    elif kind == "state":
        summary["phase"] = record.get("phase")
        summary["reason"] = record.get("reason")
        summary["ended"] = record["t"] if record.get("phase") in ENDED else None
    elif kind == "start":
        summary["data"] = (record.get("data") or {}).get("digest")
        summary["start_attempt"] = record.get("attempt")
    elif kind == "exit":
        summary["exit"] = {key: record.get(key) for key in ("code", "signal", "why", "attempt")}
    elif kind == "spec":
        summary["live"] = record.get("values")
    elif kind == "edit" and record.get("ok"):
        for key, (_, new) in record.get("changed", {}).items():
            if key in FROM_STEP:
                summary[key] = new


def drop_invalid(state: dict[str, Any]) -> dict[str, Any]:
    """Return ``state`` without values of the wrong type, which a damaged disk may leave, and with texts on one line."""
    valid = {key: value for key, value in state.items() if key not in _CHECKS or _CHECKS[key](value)}
    return valid | {key: one_line(valid[key]) for key in _SHOWN if valid.get(key)}


def is_process(value: Any) -> bool:
    """Return whether ``value`` can be the identity of a process (``engine/host/process.py``), or None."""
    if value is None:
        return True
    if type(value) is not dict or not all(map(schema.is_optional_count, map(value.get, _IDENTITY))):
        return False
    return (value.get("pid") or 0) < MAX_PID
