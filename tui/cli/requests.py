"""Sends a request to a run and waits for the record that answers it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from profiles.errors import UserError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from engine.events.run_dir import RunDir

PAUSED_TIMEOUT = 2.0  # seconds
ANSWER_TIMEOUT = 60.0  # a step on a small card takes tens of seconds


def request(run_dir: RunDir, method: str, **params: Any) -> dict[str, Any] | None:
    """Ask and wait for the record that answers; None where it takes too long (it stays asked). Raises ``UserError``."""
    import asyncio

    from engine.runs.client import RunClient

    async def answer(records: AsyncIterator[dict[str, Any]], id: str) -> dict[str, Any] | None:
        async for record in records:
            if record.get("id") == id:
                return record
        return None

    async def run() -> dict[str, Any] | None:
        link = RunClient(run_dir)
        start = (await link.history([], 1))["at"]
        paused = run_dir.summary()["phase"] == "paused"
        asked = await link.request(method, **params, by="command line")
        # A paused run does most things when it goes on; one that is held for want of memory takes an edit at once.
        held = paused and method in ("set", "checkpoint")
        patience = PAUSED_TIMEOUT if held else ANSWER_TIMEOUT
        try:
            return await asyncio.wait_for(answer(link.records(start, live=False), asked["id"]), patience)
        except TimeoutError:
            when = "the run is paused and does it when it goes on"
            when = when if held else "the trainer answers when its present micro-batch is done"
            print(f"asked ({asked['id']}); {when}", file=sys.stderr)
            return None

    record = asyncio.run(run())
    if record is None and run_dir.ended():
        raise UserError(f"run {run_dir.id}: ended before it could {method}")
    return record


def print_phase(record: dict[str, Any] | None) -> None:
    if record is not None:
        print(f"{record.get('phase')} {record.get('reason') or ''}".rstrip(), file=sys.stderr)
