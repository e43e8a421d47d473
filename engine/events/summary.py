"""What the records of a log say about a run, as one flat summary."""

from __future__ import annotations

from typing import Any

from engine.events import schema

ENDED = ("finished", "failed", "stopped")
FROM_STEP = ("step", "loss", "tok_s", "micro", "accum", "context")
CUT_OFF = "cut-off"  # neither ended nor alive: the machine went down, or trainer and supervisor were both killed
_TEXTS = ("id", "name", "phase", "reason", "backend", "profile", "checkpoint", "version", "host", "boot")
_WHOLES = ("step", "steps", "micro", "accum", "context", "attempt", "at")
_SHAPES: dict[str, schema.Check] = {
    **dict.fromkeys(_TEXTS, schema.is_text),
    **dict.fromkeys(_WHOLES, schema.is_maybe_whole),
    **dict.fromkeys(("loss", "val_loss", "tok_s", "started", "ended"), schema.is_number),
    **dict.fromkeys(("supervisor", "trainer"), lambda who: _is_process(who)),
    "exit": lambda last: last is None or (type(last) is dict and schema.is_number(last.get("code"))),
}

EVENTS = ("finished", "failed", "oom", "nan", "stall")  # for which a person may have a command run


def update_summary(summary: dict[str, Any], record: dict[str, Any]) -> None:
    """Bring ``summary`` up to date with one more record."""
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
    elif kind == "exit":
        summary["exit"] = {key: record.get(key) for key in ("code", "signal", "why", "attempt")}
    elif kind == "edit" and record.get("ok"):
        for key, (_, new) in record.get("changed", {}).items():
            if key in FROM_STEP:
                summary[key] = new


def drop_invalid(state: dict[str, Any]) -> dict[str, Any]:
    """``state`` without what a damaged disk made of some of its values: nobody behind this has to ask."""
    return {key: value for key, value in state.items() if key not in _SHAPES or _SHAPES[key](value)}


def _is_process(who: Any) -> bool:
    if who is None:
        return True
    return type(who) is dict and schema.is_maybe_whole(who.get("pid")) and schema.is_maybe_whole(who.get("start_ticks"))
