"""Names the events for which a user may configure a command."""

from __future__ import annotations

from engine.events.phases import FAILED, FINISHED, NEEDS_ATTENTION

EVENTS = (FINISHED, FAILED, NEEDS_ATTENTION, "oom", "nan", "stall")
