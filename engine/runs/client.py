"""Reads one run and sends it requests: through the socket while a supervisor answers, from its files otherwise."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from functools import partial

import msgspec

from engine.events import commands, wire
from engine.events.history import History, read_range
from engine.events.log import Tail
from engine.events.log_index import LogIndex
from engine.events.phases import CUT_OFF, DAMAGED, FINISHED, is_active
from engine.events.requests import (
    HelloRequest,
    HistoryRequest,
    Request,
    ResumeRequest,
    SubscribeRequest,
    TrainerRequest,
)
from engine.events.run_dir import EXIT_UNHANDLED, RunDir
from engine.events.series import Bucket
from engine.events.status import Summary
from engine.events.types import CutOff, Event, Link, State
from engine.events.wire import HelloAnswer, HistoryAnswer
from engine.host.version import VERSION
from engine.runs.supervision import check_not_cut_off, ensure_supervisor
from profiles.errors import UserError

POLL_INTERVAL = 0.3  # seconds between polls of the files while no supervisor answers
CUT_OFF_INTERVAL = 1.0  # seconds between polls of a run that was cut off
ANSWER_TIMEOUT = 3.0  # seconds; after that the files are read instead
SILENCE_TIMEOUT = 2.0  # seconds without a record; telemetry comes every second
RETRY_AFTER = 5.0  # seconds until a supervisor that did not answer is asked again
DETAIL_LIMIT = 12 << 20  # bytes of log that one ``detail`` reads at most: about 0.4 s
# Few threads, because each read is held in memory until it is answered. A read cancelled while queued never starts.
_READERS = ThreadPoolExecutor(2, "files")


class RunClient:
    """Reads a run's history and records and sends it requests. For one asyncio loop; calls may run concurrently."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self._retry_at = 0.0  # when to ask a supervisor again that did not answer

    async def history(
        self,
        series: list[str],
        points: int = 2000,
        since: float | None = None,
        until: float | None = None,
        marks: bool = False,
    ) -> HistoryAnswer:
        """Return the series named, at most ``points`` buckets each; with ``marks`` also the events of the run.

        ``events(answer.at)`` continues exactly where the answer ends.
        """
        request = HistoryRequest(series=series, points=points, since=since, until=until, marks=marks)
        try:
            return msgspec.json.decode(await self._call(request), type=HistoryAnswer)
        except (OSError, msgspec.ValidationError):  # none answers, or one of another version
            pass
        history, at = await asyncio.get_running_loop().run_in_executor(_READERS, self._read_files)
        return history.answer(at, series, points, since, until, marks)

    async def detail(
        self, series: list[str], points: int, since: float, until: float | None = None
    ) -> dict[str, list[Bucket]] | None:
        """Return what ``history`` does, but for single steps: a long run's history merges several into a bucket.

        It is read from the log, telemetry from the minutes of those steps; the supervisor only gives the offsets.
        None where that part of the log is longer than ``DETAIL_LIMIT``.
        """
        answer = await self.history([], 1, since, until)
        begin, end = answer.part
        end = answer.at if end is None else end
        if end - begin > DETAIL_LIMIT:
            return None
        last = math.inf if until is None else until
        part = partial(read_range, self.run.log_path, series, begin, end, since, last)
        found = await asyncio.get_running_loop().run_in_executor(_READERS, part)
        return found.query(series, points)

    async def request(self, request: TrainerRequest, by: str = "client") -> str:
        """Send a request to the trainer and return its id, which the record that answers it has.

        Starts a supervisor where only the trainer is alive; a run that was cut off is not restarted: the error says how
        to. Where the supervisor does not answer, the request is appended to the file that the trainer reads. Raises
        ``UserError``.
        """
        if self.run.ended():
            state = self.run.state()
            way_out = f"{request.method} needs an active run"
            if isinstance(request, ResumeRequest):
                more = f" -s steps={2 * state.steps}" if state.phase == FINISHED and state.steps else ""
                new_run = f"continue from its checkpoint with: mla-tui launch --resume {self.run.id}{more}"
                way_out = new_run if state.checkpoint else "it has no checkpoint to continue from; launch a new run"
            raise UserError(f"run {self.run.id}: has {state.phase}; {way_out}")
        await asyncio.to_thread(check_not_cut_off, self.run)
        await asyncio.to_thread(ensure_supervisor, self.run)
        id = commands.new_command_id()  # sent both ways, it is still one command
        for _ in range(10):
            try:
                await self._call(request, id=id, by=by)
                return id
            except OSError:
                if time.monotonic() < self._retry_at:
                    break
                await asyncio.sleep(POLL_INTERVAL)
        try:
            return await asyncio.to_thread(commands.append, self.run.commands_path, request, by, id)
        except OSError as error:
            raise UserError(f"{self.run.commands_path}: cannot be written: {error.strerror}") from None

    async def version_mismatch(self) -> str | None:
        """Return one line where the supervisor runs another version of the package than this process."""
        try:
            theirs = msgspec.json.decode(await self._call(HelloRequest()), type=HelloAnswer).version
        except (OSError, msgspec.ValidationError):
            theirs = self.run.state().version or VERSION
        if theirs == VERSION or self.run.ended():
            return None
        return f"run {self.run.id}: runs mla-tui {theirs}, this is {VERSION}; it continues with {theirs}"

    async def events(self, start: int = 0, live: bool = True) -> AsyncIterator[tuple[int | None, Event]]:
        """Yield every logged event from offset ``start`` on with its offset, until the run has ended or is cut off.

        What is not logged has None for the offset: a ``State`` while the supervisor has not handled the exit of the
        trainer, and with ``live`` progress, telemetry, when the connection is lost or restored (``Link``), and when the
        run is cut off (``CutOff``). A live reader then waits, because the run may be resumed.
        """
        next_at, up, reported = start, False, ""  # the last is the phase that was yielded without a record
        while True:
            try:
                async with aclosing(self._subscribe(next_at)) as events:
                    async for pair in events:
                        reported = ""
                        if live and not up:
                            up = True
                            yield None, Link(up=True)
                        if pair is None:
                            continue
                        if pair[0] is not None:
                            next_at = pair[0] + 1  # inside that line: its rest parses as no record
                        if live or pair[0] is not None:
                            yield pair
            except (OSError, ValueError):
                pass
            if up and not self.run.ended():
                up = False
                yield None, Link(up=False)
            # Before reading: nothing is written after the end.
            unlogged = await asyncio.to_thread(self._unlogged_phase)
            quiet, tail = True, Tail(self.run.log_path, next_at)
            try:
                while found := tail.poll():
                    for logged in found:
                        quiet, reported = False, ""
                        yield logged
                    next_at = tail.offset
            finally:
                tail.close()
            phase = unlogged.phase if unlogged else ""
            if unlogged and not is_active(phase) and not (live and phase in (CUT_OFF, DAMAGED)):
                return
            if unlogged and quiet and phase != reported:  # quiet: it was not resumed in the meantime
                reported = phase
                kind = State if is_active(phase) else CutOff
                yield None, kind(unlogged.seen or time.time(), phase=phase, reason=unlogged.reason)
            waits_for_resume = reported and not is_active(reported)
            await asyncio.sleep(CUT_OFF_INTERVAL if waits_for_resume else POLL_INTERVAL)

    def _read_files(self) -> tuple[History, int]:
        """Read the run's series from its files; return them and the offset up to which they cover the log.

        Without a supervisor the cache is written here.
        """
        log_index = LogIndex(self.run)
        log_index.catch_up()
        log_index.close()
        if not self.run.has_supervisor():
            log_index.save_if_due()
        return log_index.history, log_index.offset

    def _unlogged_phase(self) -> Summary | None:
        """Return the summary where its phase is not, or need not be, that of the last record; None otherwise.

        Either no process can write another record, or the supervisor has not handled the exit of the trainer.
        """
        if self.run.has_trainer():
            return None
        alive, summary = self.run.has_supervisor(), self.run.summary()
        has_stopped = not alive and not is_active(summary.phase)
        return summary if summary.reason == EXIT_UNHANDLED or has_stopped else None

    def _is_unlogged(self) -> bool:
        return self._unlogged_phase() is not None

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect. Raises ``OSError`` where no supervisor listens, or the last one asked did not answer."""
        if time.monotonic() < self._retry_at:
            raise OSError("did not answer recently")
        sock = wire.connect(self.run.socket_path)
        sock.setblocking(False)
        return await asyncio.open_unix_connection(sock=sock, limit=wire.ANSWER_LIMIT)

    async def _read_line(self, reader: asyncio.StreamReader, timeout: float = ANSWER_TIMEOUT) -> bytes:
        """Return the next message. Raises ``OSError`` where none comes in ``timeout`` seconds or it is incomplete."""
        try:
            async with asyncio.timeout(timeout):
                line = await reader.readline()
        except TimeoutError:
            self._retry_at = time.monotonic() + RETRY_AFTER
            raise OSError(f"no answer within {timeout:g} s") from None
        if not line.endswith(b"\n"):  # none, or a part: the supervisor died while answering
            raise OSError("the supervisor closed the connection")
        return line

    async def _read_answer(self, reader: asyncio.StreamReader) -> wire.Message:
        """Return the answer to a request. Raises ``OSError`` where there is none, or the server is busy."""
        try:
            answer = wire.decode_message(await self._read_line(reader))
        except ValueError as error:
            raise OSError(f"the supervisor's answer is damaged: {error}") from None
        if answer.error is not None and answer.error.code == wire.BUSY:
            self._retry_at = time.monotonic() + RETRY_AFTER
            raise OSError(answer.error.message)
        return answer

    async def _call(self, request: Request, **also: str) -> bytes:
        """Send one request and return its result. Raises ``OSError`` without an answer, ``UserError`` for a refusal."""
        reader, writer = await self._open()
        try:
            writer.write(wire.encode_request(1, request, **also))
            answer = await self._read_answer(reader)
        finally:
            writer.close()
        if answer.error is not None:
            raise UserError(f"run {self.run.id}: {answer.error.message}")
        return bytes(answer.result)

    async def _subscribe(self, start: int) -> AsyncGenerator[tuple[int | None, Event] | None, None]:
        """Yield None once subscribed, then the socket's events. Ends, or raises ``OSError``, with them."""
        reader, writer = await self._open()
        try:
            writer.write(wire.encode_request(1, SubscribeRequest(start=start)))
            if (await self._read_answer(reader)).error is not None:
                return
            yield None
            at = start
            while True:
                try:
                    line = await self._read_line(reader, SILENCE_TIMEOUT)
                except OSError:
                    if reader.at_eof() or self._log_is_ahead(at) or await asyncio.to_thread(self._is_unlogged):
                        raise
                    self._retry_at = 0.0  # silent because there is nothing new
                    continue
                if (pair := wire.decode_event(line)) is not None:
                    at = at if pair[0] is None else pair[0] + 1
                    yield pair
        finally:
            writer.close()

    def _log_is_ahead(self, at: int) -> bool:
        """Whether the log has records that the socket has not sent."""
        tail = Tail(self.run.log_path, at)
        try:
            return bool(tail.poll())
        finally:
            tail.close()
