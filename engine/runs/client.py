"""One client's view of one run: the socket while a supervisor answers, the same files otherwise."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from functools import partial
from typing import Any

from engine.events import commands, wire
from engine.events.history import History, read_part
from engine.events.log import Record, Tail
from engine.events.log_index import LogIndex
from engine.events.run_dir import RunDir
from engine.events.summary import CUT_OFF, ENDED
from engine.host.process import is_locked
from engine.host.version import package_version
from engine.runs.launch import ensure_supervisor
from profiles.errors import UserError

LOOK_AGAIN = 0.3  # seconds between two looks while no supervisor answers
ANSWER_PATIENCE = 3.0  # seconds; beyond that the files say the same
DETAIL_LIMIT = 12 << 20  # bytes of log that are read for one look at it: about 0.4 s
# What a look at the files reads is in memory until it is answered: few at a time, and one that was called off before it
# began is never read.
_READERS = ThreadPoolExecutor(2, "files")
SILENT_FOR = 5.0  # seconds that a supervisor which did not answer is not asked again


class RunClient:
    """Reads a run's history and records, and asks things of it. One asyncio loop, any number of calls at once."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self._ask_again = 0.0  # when a supervisor that did not answer is worth another try

    async def history(
        self,
        series: list[str],
        points: int = 2000,
        since: float | None = None,
        until: float | None = None,
        marks: bool = False,
    ) -> dict[str, Any]:
        """``{"at": offset, "series": {name: [[x, min, mean, max], …]}}``, at most ``points`` a series.

        ``records(answer["at"])`` goes on exactly where the answer ends. ``"part": [from, to]`` beside them is where the
        log tells of the steps between ``since`` and ``until``; ``to`` is None for its end. With ``marks`` there is
        ``"marks"`` too: what happened to the run (``engine.events.marks``).
        """
        params = {"series": series, "points": points, "since": since, "until": until, "marks": marks}
        try:
            return await self._call("history", params)
        except OSError:
            pass
        history, at = await asyncio.get_running_loop().run_in_executor(_READERS, self._digest)
        answer = {"at": at, "series": history.answer(series, points, since, until), "part": history.part(since, until)}
        return answer | ({"marks": history.marks.to_list()} if marks else {})

    async def detail(
        self, series: list[str], points: int, since: float, until: float | None = None
    ) -> dict[str, Any] | None:
        """As ``history``, but of single steps, read again from the log: what a bucket of a long run has merged.

        Telemetry is that of the minutes in which these steps were done. None where that part of the log is longer than
        ``DETAIL_LIMIT``. The supervisor is asked only where it is.
        """
        answer = await self.history([], 1, since, until)
        begin, end = answer.get("part") or (0, None)
        end = answer["at"] if end is None else end
        if end - begin > DETAIL_LIMIT:
            return None
        last = math.inf if until is None else until
        part = partial(read_part, self.run.log_path, series, begin, end, since, last)
        found = await asyncio.get_running_loop().run_in_executor(_READERS, part)
        return {"at": end, "series": found.answer(series, points)}

    async def request(self, method: str, **params: Any) -> dict[str, Any]:
        """Ask the run for something; starts a supervisor where none lives. Raises ``UserError``.

        Where one lives and does not answer, what was meant for the trainer is written where the trainer reads it.
        """
        if self.run.ended():
            state = self.run.state()
            raise UserError(f"run {self.run.id}: has {state['phase']}; {method} needs a living run")
        await asyncio.to_thread(ensure_supervisor, self.run)
        known = method in commands.METHODS
        if known:
            params = {**params, "id": commands.new_id()}  # should both ways arrive, it is one command
        for _ in range(10):
            try:
                return await self._call(method, params)
            except OSError:
                if time.monotonic() < self._ask_again:
                    break
                await asyncio.sleep(LOOK_AGAIN)
        if not known:
            raise UserError(f"run {self.run.id}: its supervisor does not answer; see {self.run.console_path}")
        id, by = str(params.pop("id")), str(params.pop("by", "client"))
        try:
            await asyncio.to_thread(commands.append, self.run.commands_path, method, params, by, id)
        except OSError as error:
            raise UserError(f"{self.run.commands_path}: cannot be written: {error.strerror}") from None
        return {"id": id, "state": "pending"}

    async def version_mismatch(self) -> str | None:
        """One line where the supervisor runs another version of the package than we do."""
        try:
            theirs = str((await self._call("hello", {}))["version"])
        except (OSError, KeyError):
            theirs = str(self.run.state().get("version") or package_version())
        if theirs == package_version() or self.run.ended():
            return None
        return f"run {self.run.id}: runs under mla-tui {theirs}, this is {package_version()}; it keeps {theirs}"

    async def records(self, start: int = 0, live: bool = True) -> AsyncIterator[Record]:
        """Every logged record from offset ``start`` on, each with ``at``, until the run has ended.

        With ``live`` also those that are not logged (``progress``, ``telemetry``; no ``at``) and, when the socket is
        lost or regained, ``{"kind": "link", "up": …}``.
        """
        at, up = start, False
        while True:
            try:
                async with aclosing(self._subscribed(at)) as told:
                    async for record in told:
                        if live and not up:
                            up = True
                            yield {"kind": "link", "up": True}
                        if "at" in record:
                            at = record["at"] + 1  # within that line: what is left of it parses as no record
                            yield record
                        elif live and "kind" in record:
                            yield record
            except (OSError, ValueError):
                pass
            if up and not self.run.ended():
                up = False
                yield {"kind": "link", "up": False}
            ended = await asyncio.to_thread(self._over)  # asked before reading: nothing is written after the end
            tail = Tail(self.run.log_path, at)
            try:
                while found := tail.poll():
                    for offset, record in found:
                        yield {"at": offset, **record}
                    at = tail.offset
            finally:
                tail.close()
            if ended:
                return
            await asyncio.sleep(LOOK_AGAIN)

    def _digest(self) -> tuple[History, int]:
        """The run's series and up to where in the log they go, from its files.

        The cache is made anew where nobody else will.
        """
        log_index = LogIndex(self.run)
        log_index.catch_up()
        log_index.close()
        if not is_locked(self.run.supervisor_lock):
            log_index.save_if_due()
        return log_index.history, log_index.offset

    def _over(self) -> bool:
        """Whether nobody is left who could write another record: ended, and both processes are gone."""
        if is_locked(self.run.trainer_lock) or is_locked(self.run.supervisor_lock):
            return False
        return self.run.summary()["phase"] in (*ENDED, CUT_OFF)

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Raises ``OSError`` where nobody listens, or somebody who did not answer a moment ago."""
        if time.monotonic() < self._ask_again:
            raise OSError("did not answer a moment ago")
        sock = wire.connect(self.run.socket_path)
        sock.setblocking(False)
        return await asyncio.open_unix_connection(sock=sock, limit=wire.ANSWER_LIMIT)

    async def _line(self, reader: asyncio.StreamReader) -> dict[str, Any]:
        """The next message. Raises ``OSError`` where none comes or it is cut off."""
        try:
            async with asyncio.timeout(ANSWER_PATIENCE):
                line = await reader.readline()
        except TimeoutError:
            self._ask_again = time.monotonic() + SILENT_FOR
            raise OSError(f"no answer within {ANSWER_PATIENCE:g} s") from None
        if not line.endswith(b"\n"):  # none, or a part: it died within the answer
            raise OSError("the supervisor hung up")
        message = json.loads(line)
        if message.get("error", {}).get("code") == wire.BUSY:
            self._ask_again = time.monotonic() + SILENT_FOR
            raise OSError(message["error"]["message"])
        return dict(message)

    async def _call(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """One request, one answer. Raises ``OSError`` where nobody answers, ``UserError`` for a refusal."""
        reader, writer = await self._open()
        try:
            writer.write(wire.encode({"id": 1, "method": method, "params": params}))
            answer = await self._line(reader)
        finally:
            writer.close()
        if "error" in answer:
            raise UserError(f"run {self.run.id}: {answer['error']['message']}")
        return dict(answer["result"])

    async def _subscribed(self, start: int) -> AsyncGenerator[Record, None]:
        """An empty record for the answer, then the socket's. Ends, or raises ``OSError``, where they stop coming."""
        reader, writer = await self._open()
        try:
            writer.write(wire.encode({"id": 1, "method": "subscribe", "params": {"from": start}}))
            if "result" not in await self._line(reader):
                return
            yield {}
            at = start
            while True:
                try:
                    message = await self._line(reader)
                except OSError:
                    if reader.at_eof() or self._unread(at):
                        raise
                    self._ask_again = 0.0  # it is silent because there is nothing to say
                    continue
                if message.get("method") == "event":
                    at = message["params"].get("at", at - 1) + 1
                    yield message["params"]
        finally:
            writer.close()

    def _unread(self, at: int) -> bool:
        """Whether the log says more than the socket did."""
        tail = Tail(self.run.log_path, at)
        try:
            return bool(tail.poll())
        finally:
            tail.close()
