"""What the records of a log say about a job, as one flat summary."""

from __future__ import annotations

from typing import Any

ENDED = ("finished", "failed", "stopped")
FROM_STEP = ("step", "loss", "tok_s", "micro", "accum", "context")
CUT_OFF = "cut-off"  # neither ended nor alive: the machine went down, or trainer and supervisor were both killed

EVENTS = ("finished", "failed", "oom", "nan", "stall")  # for which a person may have a command run


def fold(summary: dict[str, Any], record: dict[str, Any]) -> None:
    """Bring ``summary`` up to date with one more record."""
    kind = record["kind"]
    summary["attempt"] = max(summary.get("attempt") or 0, record.get("attempt") or 0)
    if kind == "step":
        summary.update({key: record.get(key) for key in FROM_STEP})
    elif kind == "val":
        summary["val_loss"] = record.get("loss")
    elif kind == "checkpoint" and record.get("ok"):
        summary["checkpoint"] = record.get("path")
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
