"""Keeps the summary of a run, a flat dict that each record of the log updates; ``state.json`` holds it."""

from __future__ import annotations

from typing import Any

from engine.events.phases import has_ended
from engine.events.types import Checkpoint, Edit, Event, Exit, Spec, Start, State, Step, Val

FROM_STEP = ("step", "loss", "tok_s", "micro", "accum", "context")


def update_summary(summary: dict[str, Any], event: Event) -> None:
    """Update ``summary`` with the next record of the log."""
    summary["attempt"] = max(summary.get("attempt") or 0, event.attempt)
    match event:
        case Step():
            summary.update({name: getattr(event, name) for name in FROM_STEP})
        case Val():
            summary["val_loss"] = event.loss
            summary["bits_per_byte"] = event.bits_per_byte
        case Checkpoint(ok=True):
            summary["checkpoint"] = event.path
            summary["checkpoint_bytes"] = event.bytes
        case State():
            summary["phase"] = event.phase
            summary["reason"] = event.reason
            summary["ended"] = event.t if has_ended(event.phase) else None
        case Start():
            summary["data"] = event.data.digest if event.data else None
            summary["start_attempt"] = event.attempt
        case Exit():
            summary["exit"] = {name: getattr(event, name) for name in ("code", "signal", "why", "attempt")}
        case Spec():
            summary["live"] = event.values
        case Edit(ok=True):
            summary.update({key: new for key, (_, new) in event.changed.items() if key in FROM_STEP})
