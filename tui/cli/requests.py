"""Sends a request to a run and waits for the record that answers it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from engine.events.phases import NEEDS_ATTENTION, PAUSED, STARTING
from profiles.errors import UserError
from profiles.printable import one_line

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from engine.events.requests import TrainerRequest
    from engine.events.run_dir import RunDir
    from engine.events.types import Event

ANSWER_TIMEOUT = 60.0  # seconds; a step on a small GPU takes tens of them
PAUSED_TIMEOUT = 2.0
SILENCE = 3.0  # seconds without an answer, after which a line says what is waited for


def request(run_dir: RunDir, what: TrainerRequest) -> Event | None:
    """Send a request and return the event that answers it.

    Return None on a timeout; the run still gets the request. Raises ``UserError``.
    """
    import asyncio

    from engine.events.requests import CheckpointRequest, SetRequest
    from engine.runs.client import RunClient

    async def find_answer(events: AsyncIterator[tuple[int | None, Event]], id: str) -> Event | None:
        async for _, event in events:
            if event.id == id:
                return event
        return None

    async def send() -> Event | None:
        client = RunClient(run_dir)
        start = (await client.history([], 1)).at
        paused = run_dir.summary().phase == PAUSED
        id = await client.request(what, by="command line")
        # A paused run saves and applies edits only after it resumes, unless it is paused by an out-of-memory error:
        # then it applies an edit at once.
        deferred = "after the run resumes" if paused and isinstance(what, SetRequest | CheckpointRequest) else ""
        timeout = PAUSED_TIMEOUT if deferred else ANSWER_TIMEOUT
        answer = asyncio.ensure_future(find_answer(client.events(start, live=False), id))
        await asyncio.wait([answer], timeout=min(timeout, SILENCE))
        if not answer.done() and (waiting := _has_no_trainer(run_dir)):  # it may wait for days
            deferred, timeout = f"when the run trains; it is {waiting}", SILENCE
        if not answer.done() and timeout > SILENCE:
            print(f"requested {what.method} ({id}); {_waits_for(run_dir)}", file=sys.stderr, flush=True)
        try:
            return await asyncio.wait_for(answer, max(timeout - SILENCE, 0))
        except TimeoutError:
            when = deferred or "after the current micro-batch"
            print(one_line(f"requested {what.method} ({id}); takes effect {when}"), file=sys.stderr)
            return None

    answer = asyncio.run(send())
    if answer is None and run_dir.ended():
        raise UserError(f"run {run_dir.id}: ended before {what.method} took effect")
    return answer


def _has_no_trainer(run_dir: RunDir) -> str:
    """Return phase and reason of a run that waits for a device, or for a user, before it trains; else nothing."""
    summary = run_dir.summary()
    if summary.phase not in (STARTING, NEEDS_ATTENTION) or run_dir.has_trainer():
        return ""
    return f"{summary.phase}: {summary.reason}" if summary.reason else summary.phase


def _waits_for(run_dir: RunDir) -> str:
    """Return what a request waits for that has had no answer yet."""
    from engine.host.process import is_alive, is_stopped

    trainer = run_dir.trainer_identity()
    if trainer is not None and is_alive(trainer) and is_stopped(trainer.pid):
        return f"its trainer is stopped by a signal: kill -CONT {trainer.pid} lets it continue"
    return "waiting for the end of the current micro-batch"


def print_phase(answer: Event | None) -> None:
    from engine.events.types import State

    if isinstance(answer, State):
        print(f"{answer.phase} {answer.reason or ''}".rstrip(), file=sys.stderr)
