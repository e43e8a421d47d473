"""Sends a request to a run and waits for the record that answers it."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from engine.events.phases import NEEDS_ATTENTION, PAUSED, STARTING, phase_of
from profiles.errors import UserError
from profiles.printable import one_line

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from engine.events.requests import TrainerRequest
    from engine.events.run_dir import RunDir
    from engine.events.status import Summary
    from engine.events.types import Event

ANSWER_TIMEOUT = 60.0  # seconds; a step on a small GPU takes tens of them
PAUSED_TIMEOUT = 2.0
SILENCE = 3.0  # seconds without an answer, after which a line says what is waited for


def request(run_dir: RunDir, what: TrainerRequest) -> Event | None:
    """Send a request and return the event that answers it.

    Return None on a timeout; the run still gets the request. Raises ``UserError``.
    """
    import asyncio

    from engine.runs.client import RunClient

    async def find_answer(events: AsyncIterator[tuple[int | None, Event]], id: str) -> Event | None:
        async for _, event in events:
            if event.id == id:
                return event
        return None

    async def send() -> Event | None:
        client = RunClient(run_dir)
        start = (await client.history([], 1)).at
        answer_at = time.monotonic() + ANSWER_TIMEOUT
        wait, said = PAUSED_TIMEOUT if _is_deferred(run_dir, what) else SILENCE, False
        id = await client.request(what, by="command line")
        answer = asyncio.ensure_future(find_answer(client.events(start, live=False), id))
        while time.monotonic() < answer_at and not answer.done():
            await asyncio.wait([answer], timeout=wait)
            if answer.done() or _is_deferred(run_dir, what) or _has_no_trainer(run_dir):  # it may wait for days
                break
            if not said:
                print(f"requested {what.method} ({id}); {_waits_for(run_dir)}", file=sys.stderr, flush=True)
            said = True
        if answer.done() and (answer.result() is not None or run_dir.ended()):
            return answer.result()
        answer.cancel()
        print(one_line(f"requested {what.method} ({id}); {_happens(what)} {_when(run_dir, what)}"), file=sys.stderr)
        return None

    answer = asyncio.run(send())
    if answer is None and run_dir.ended():
        raise UserError(f"run {run_dir.id}: ended before {what.method} took effect")
    return answer


def _is_deferred(run_dir: RunDir, what: TrainerRequest) -> bool:
    """Return whether the run is paused and does not do it before it resumes.

    Paused by an out-of-memory error it applies an edit at once.
    """
    from engine.events.requests import CheckpointRequest, SetRequest

    return isinstance(what, SetRequest | CheckpointRequest) and run_dir.summary().phase == PAUSED


def _has_no_trainer(run_dir: RunDir) -> bool:
    """Return whether the run waits for a device, or for a user, before it trains."""
    return run_dir.summary().phase in (STARTING, NEEDS_ATTENTION) and not run_dir.has_trainer()


def _happens(what: TrainerRequest) -> str:
    """Return what happens to a request: an edit may still be refused."""
    from engine.events.requests import SetRequest

    return "is checked and made" if isinstance(what, SetRequest) else "takes effect"


def _when(run_dir: RunDir, what: TrainerRequest) -> str:
    """Return when a run, as it is now, does what is requested."""
    if _is_deferred(run_dir, what):
        return "after the run resumes"
    summary = run_dir.summary()
    trains = phase_of(summary.phase).trains
    return "after the current micro-batch" if trains else f"when the run trains; it is {_phase_text(summary)}"


def _phase_text(summary: Summary) -> str:
    return f"{summary.phase}: {summary.reason}" if summary.reason else str(summary.phase)


def _waits_for(run_dir: RunDir) -> str:
    """Return what a request waits for that has had no answer yet."""
    from engine.host.process import is_alive, is_stopped

    trainer = run_dir.trainer_identity()
    if trainer is not None and is_alive(trainer) and is_stopped(trainer.pid):
        return f"its trainer is stopped by a signal: kill -CONT {trainer.pid} lets it continue"
    summary = run_dir.summary()
    if not phase_of(summary.phase).trains:
        return f"waiting for its trainer; the run is {_phase_text(summary)}"
    return "waiting for the end of the current micro-batch"


def print_phase(answer: Event | None) -> None:
    from engine.events.types import State

    if isinstance(answer, State):
        print(f"{answer.phase} {answer.reason or ''}".rstrip(), file=sys.stderr)
