"""One client's view of one job: the socket while a supervisor lives, the same files otherwise."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from engine.jobs import wire
from engine.jobs.digest import Digest
from engine.jobs.launch import ensure_supervisor
from engine.jobs.log import Record, Tail
from engine.jobs.process import is_locked
from engine.jobs.status import CUT_OFF, ENDED
from engine.jobs.store import Job
from profiles.errors import UserError

LOOK_AGAIN = 0.3  # seconds between two looks while no supervisor answers
ANSWER_PATIENCE = 20.0


class Link:
    """Reads a job's history and records, and asks things of it. One asyncio loop, any number of calls at once."""

    def __init__(self, job: Job) -> None:
        self.job = job

    async def history(
        self, series: list[str], points: int = 2000, since: float | None = None, until: float | None = None
    ) -> dict[str, Any]:
        """``{"at": offset, "series": {name: [[x, min, mean, max], …]}}``, at most ``points`` a series.

        ``records(answer["at"])`` goes on exactly where the answer ends.
        """
        params = {"series": series, "points": points, "since": since, "until": until}
        try:
            return await self._call("history", params)
        except OSError:
            pass
        digest = await asyncio.to_thread(self._digest)
        return {"at": digest.at, "series": digest.history.answer(series, points, since, until)}

    async def request(self, method: str, **params: Any) -> dict[str, Any]:
        """Ask the run for something; starts a supervisor where none lives. Raises ``UserError``."""
        if self.job.ended():
            state = self.job.state()
            raise UserError(f"job {self.job.id}: has {state['phase']}; {method} needs a living run")
        await asyncio.to_thread(ensure_supervisor, self.job)
        for _ in range(10):
            try:
                return await self._call(method, params)
            except OSError:
                await asyncio.sleep(LOOK_AGAIN)
        raise UserError(f"job {self.job.id}: its supervisor does not answer; see {self.job.console_path}")

    async def records(self, start: int = 0, live: bool = True) -> AsyncIterator[Record]:
        """Every logged record from offset ``start`` on, each with ``at``, until the run has ended.

        With ``live`` also those that are not logged (``progress``, ``telemetry``; no ``at``) and, when the socket is
        lost or regained, ``{"kind": "link", "up": …}``.
        """
        at, up = start, False
        while True:
            try:
                reader, writer = await self._open()
            except OSError:
                reader = None
            if reader is not None:
                if live and not up:
                    up = True
                    yield {"kind": "link", "up": True}
                try:
                    async for record in _subscribe(reader, writer, at):
                        if "at" in record:
                            at = record["at"] + 1  # within that line: what is left of it parses as no record
                            yield record
                        elif live:
                            yield record
                except (OSError, ValueError):
                    pass
                finally:
                    writer.close()
                if live and not self.job.ended():
                    up = False
                    yield {"kind": "link", "up": False}
            ended = await asyncio.to_thread(self._over)  # asked before reading: nothing is written after the end
            tail = Tail(self.job.log_path, at)
            try:
                while found := tail.poll():
                    for offset, record in found:
                        yield {"at": offset, **record}
                    at = tail.at
            finally:
                tail.close()
            if ended:
                return
            await asyncio.sleep(LOOK_AGAIN)

    async def close(self) -> None:
        """Nothing is held between calls."""

    def _digest(self) -> Digest:
        """The job's digest, from its files; the cache is made anew where nobody else will."""
        digest = Digest(self.job)
        digest.catch_up()
        digest.close()
        if not is_locked(self.job.supervisor_lock):
            digest.save_if_due()
        return digest

    def _over(self) -> bool:
        """Whether nobody is left who could write another record: ended, and both processes are gone."""
        if is_locked(self.job.trainer_lock) or is_locked(self.job.supervisor_lock):
            return False
        return self.job.summary()["phase"] in (*ENDED, CUT_OFF)

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        sock = wire.connect(self.job.socket_path)
        sock.setblocking(False)
        return await asyncio.open_unix_connection(sock=sock, limit=wire.ANSWER_LIMIT)

    async def _call(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """One request, one answer. Raises ``OSError`` where nobody answers, ``UserError`` for a refusal."""
        reader, writer = await self._open()
        try:
            writer.write(wire.encode({"id": 1, "method": method, "params": params}))
            line = await asyncio.wait_for(reader.readline(), ANSWER_PATIENCE)
        except TimeoutError:
            raise OSError(f"no answer within {ANSWER_PATIENCE:g} s") from None
        finally:
            writer.close()
        if not line.endswith(b"\n"):  # none, or a part: it died within the answer
            raise OSError("the supervisor hung up")
        answer = json.loads(line)
        if "error" in answer:
            raise UserError(f"job {self.job.id}: {answer['error']['message']}")
        return dict(answer["result"])


async def _subscribe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, start: int) -> AsyncIterator[Record]:
    writer.write(wire.encode({"id": 1, "method": "subscribe", "params": {"from": start}}))
    while line := await reader.readline():
        message = json.loads(line)
        if message.get("method") == "event":
            yield message["params"]
