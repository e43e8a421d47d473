"""Keeps the state of a run up to date with the records of its log."""

from __future__ import annotations

from collections.abc import Sequence

from engine.events.phases import RECOVERING, RUNNING, has_ended
from engine.events.status import LastExit, RunStatus
from engine.events.types import Alert, Checkpoint, Edit, Event, Exit, Spec, Start, State, Step, Val

_LONGEST_STEP = 15  # digits
_EDITED = ("micro", "accum", "context")


def update_status(state: RunStatus, event: Event) -> None:
    """Update ``state`` with the next record of the log."""
    state.attempt = max(state.attempt, event.attempt)
    state.stalled = stalled_after(event, state.stalled)
    match event:
        case Step():
            state.step, state.loss, state.tok_s = event.step, event.loss, event.tok_s
            state.micro, state.accum, state.context = event.micro, event.accum, event.context
        case Val():
            state.val_step, state.val_loss, state.bits_per_byte = event.step, event.loss, event.bits_per_byte
        case Checkpoint(ok=True):
            state.checkpoint, state.checkpoint_bytes, state.restarts_at = event.path, event.bytes, event.step
        case State():
            # Why a run goes on is an event, not a state: it would stay until the run ends.
            state.phase, state.reason = event.phase, "" if event.phase == RUNNING else event.reason
            state.ended = event.t if has_ended(event.phase) else None
            if event.phase == RECOVERING:
                go_back(state)
        case Start():
            state.restarts_at = event.resumed_from
            go_back(state)
            state.checkpoint = _newest_checkpoint(state.checkpoint, event.resumed_from)
            state.data = event.data.digest if event.data else None
            state.start_attempt = event.attempt
        case Exit():
            state.exit = LastExit(event.code, event.signal, event.why or "", event.attempt)
        case Spec():
            state.live, state.later = event.values, event.later
            _update_values(state, event)
        case Edit(ok=True):
            for name in _EDITED:
                if name in event.changed and isinstance(event.changed[name][1], int):
                    setattr(state, name, event.changed[name][1])


def _update_values(state: RunStatus, event: Spec) -> None:
    """Take in the batch as it is now, and how many steps the run will have: a wsd run may be lengthened."""
    now, will_be = event.values or {}, event.values or {}
    for planned in event.later or []:
        will_be = {**will_be, **planned.values}
    found = now.get("batch.micro"), event.accum, now.get("batch.context"), will_be.get("train.steps")
    for name, value in zip((*_EDITED, "steps"), found, strict=True):
        if type(value) is int:
            setattr(state, name, value)


def go_back(state: RunStatus) -> None:
    """Take back what an attempt did behind the checkpoint that the next one resumes from: it is lost."""
    state.step, state.loss = state.restarts_at, None
    if (state.val_step or 0) > (state.restarts_at or 0):
        state.val_step = state.val_loss = state.bits_per_byte = None


def _newest_checkpoint(saved: str | None, step: int | None) -> str | None:
    """Return the newest checkpoint of a run that has resumed from ``step``: a later one is missing or damaged."""
    number = step_of(saved)
    if step is None or saved is None or number is None or number <= step:
        return saved
    return f"{saved.removesuffix(str(number))}{step}"


def step_of(checkpoint: str | None) -> int | None:
    """Return the step in the path of a checkpoint, None where it names none."""
    number = (checkpoint or "").rpartition("ckpt_step_")[2]
    return int(number) if number.isdecimal() and len(number) <= _LONGEST_STEP else None


def stalled_after(event: Event, stalled: str | None) -> str | None:
    """Return what is said of a stall after a record: any progress ends it."""
    match event:
        case Alert(what="stall"):
            return event.text
        case Alert(what="stall-over") | Step() | Start() | State():
            return None
    return stalled


def update_status_by_all(state: RunStatus, events: Sequence[tuple[int, Event]], start: int = 0) -> None:
    """Update ``state`` with records and their offsets, from the offset ``start`` on.

    Of steps one after another only the last matters.
    """
    last = len(events) - 1
    for i, (offset, event) in enumerate(events):
        if isinstance(event, Step) and i < last and isinstance(events[i + 1][1], Step):
            continue
        if offset >= start:
            update_status(state, event)
