"""Serves the log socket: answers requests and streams records to each client at the client's own pace.

The log file is the queue of every client. A client that does not read delays only its own stream: it costs one file
offset and one buffer, and receives every record when it reads again.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any, Protocol

import msgspec

from engine.events import commands, wire
from engine.events.decode import decode
from engine.events.log import Tail
from engine.events.log_index import LogIndex
from engine.events.requests import (
    CheckpointRequest,
    HelloRequest,
    HistoryRequest,
    PauseRequest,
    Request,
    ResumeRequest,
    SetRequest,
    StatusRequest,
    StopRequest,
    SubscribeRequest,
    TrainerRequest,
)
from engine.events.run_dir import RunDir
from engine.events.types import Event, Progress
from engine.host.files import write_stderr
from engine.host.version import VERSION
from engine.runs.listener import Listener

SEND_BUFFER = 64 << 10  # bytes a client may leave unread before its stream waits for it
FIRST_REQUEST_TIMEOUT = 30.0  # seconds
CACHED_CHUNKS = 8  # encoded pieces of the log: clients that keep up all read the same ones
CLOSE_GRACE = 0.2  # seconds for clients to read to the end of the log before they are disconnected


class ServedRun(Protocol):
    """What the server needs of the run it serves."""

    run_dir: RunDir
    index: LogIndex

    def request_stop(self, id: str) -> None: ...

    def kill_trainer(self, id: str) -> None: ...

    def on_event(self, event: Event) -> None: ...


class Server:
    def __init__(self, run: ServedRun) -> None:
        self._run = run
        self._live: dict[type[Event], tuple[int, bytes]] = {}  # kind → (sequence, newest live-only event)
        self._tail = Tail(run.run_dir.log_path)
        self._chunks: dict[int, tuple[bytes, int]] = {}  # offset → (the events from there on, where they end)
        self._live_count = 0
        self._changed = asyncio.Event()
        self._listener = Listener(run.run_dir.socket_path, self._serve)

    async def start(self) -> None:
        await self._listener.start()

    async def close(self) -> None:
        """Let every client read to the end of the log, then disconnect it."""
        self.notify()
        await self._listener.close(CLOSE_GRACE)
        self._tail.close()

    def notify(self) -> None:
        """Wake every stream: the log has grown or there is a live record."""
        self._changed.set()
        self._changed = asyncio.Event()

    def publish(self, event: Event) -> None:
        """Send a live-only event to the subscribed clients; of each kind only the newest is kept."""
        self._live_count += 1
        self._live[type(event)] = (self._live_count, wire.encode_event(event))
        self.notify()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one client's requests until it disconnects."""
        writer.transport.set_write_buffer_limits(high=SEND_BUFFER)
        stream: asyncio.Task[None] | None = None
        timeout: float | None = FIRST_REQUEST_TIMEOUT
        try:
            while True:
                id, method = None, "request"
                try:
                    async with asyncio.timeout(timeout):
                        line = await _read_request(reader)
                    timeout = None
                    call = wire.decode_call(line)
                    id, method = call.id, call.method
                    if method == "event":
                        self._accept_live(decode(call.params))
                        await asyncio.sleep(0)
                        continue
                    request = call.request()
                    if isinstance(request, SubscribeRequest):
                        if stream is not None:
                            raise wire.RpcError(wire.REFUSED, "subscribe: this connection is already subscribed")
                        writer.write(wire.encode_answer(id, wire.SubscribeAnswer(request.start)))
                        stream = asyncio.create_task(self._stream(writer, request.start))
                    else:
                        writer.write(wire.encode_answer(id, await self._answer(request, call)))
                except (asyncio.IncompleteReadError, TimeoutError):
                    return
                except wire.RpcError as error:
                    writer.write(_error(id, error))
                except ConnectionError:
                    raise  # an OSError too, but there is no client left to answer
                except OSError as error:
                    what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
                    writer.write(_error(id, wire.RpcError(wire.REFUSED, f"{method}: {what}")))
                await writer.drain()
                await asyncio.sleep(0)  # a client that sends many requests at once must not starve the others
        finally:
            if stream is not None:
                stream.cancel()

    async def _answer(self, request: Request, call: wire.Call) -> msgspec.Struct:
        run = self._run
        match request:
            case HelloRequest():
                return wire.HelloAnswer(VERSION, os.getpid(), run.run_dir.id, run.index.offset)
            case StatusRequest():
                return run.run_dir.summary()
            case HistoryRequest():
                names, at = list(dict.fromkeys(request.series)), run.index.offset
                part = request.points, request.since, request.until, request.marks
                return run.index.history.answer(at, names, *part)
            case SetRequest() | PauseRequest() | ResumeRequest() | CheckpointRequest() | StopRequest():
                return await self._pass_on(request, call.sender())
        raise wire.RpcError(wire.METHOD_NOT_FOUND, f"{request.method}: no such method")

    async def _pass_on(self, request: TrainerRequest, sender: wire.Sender) -> wire.CommandAnswer:
        """Append a command for the trainer; a stop that no trainer can read is carried out here."""
        path = self._run.run_dir.commands_path
        # In a thread, because it waits for the disk.
        id = await asyncio.to_thread(commands.append, path, request, sender.by[:100], sender.id)
        if isinstance(request, StopRequest):
            self._run.kill_trainer(id) if request.kill else self._run.request_stop(id)
        return wire.CommandAnswer(id)

    def _accept_live(self, event: Event | None) -> None:
        """Pass on what a trainer sends without logging it."""
        if isinstance(event, Progress):
            self._run.on_event(event)
            self.publish(event)

    async def _stream(self, writer: asyncio.StreamWriter, start: int) -> None:
        """Send every record from ``start`` on, then each new one, waiting for a slow client."""
        at, seen = start, self._live_count
        try:
            while True:
                changed = self._changed
                while True:
                    events, at = self._events(at)
                    if not events:
                        break
                    writer.write(events)
                    await writer.drain()
                    await asyncio.sleep(0)
                for count, event in sorted(self._live.values()):
                    if count > seen:
                        writer.write(event)
                seen = self._live_count
                await writer.drain()
                await changed.wait()
        except ConnectionError:
            pass
        except Exception as error:
            write_stderr(f"log.sock: a client's stream failed: {error!r}")
            writer.close()  # the client reconnects, or reads the files

    def _events(self, at: int) -> tuple[bytes, int]:
        """Return a chunk of the log from ``at`` on, encoded, and the offset at which it ends."""
        if at not in self._chunks:
            self._tail.offset = at
            events = self._tail.poll()
            if not events:
                return b"", self._tail.offset
            encoded = b"".join(wire.encode_event(event, offset) for offset, event in events)
            if len(self._chunks) >= CACHED_CHUNKS:
                del self._chunks[next(iter(self._chunks))]
            self._chunks[at] = encoded, self._tail.offset
        return self._chunks[at]


async def _read_request(reader: asyncio.StreamReader) -> bytes:
    """Read one line. Raises ``RpcError`` where it is too long, after discarding it, so that the next can be read."""
    complete = True
    while True:
        try:
            line = await reader.readuntil(b"\n")
        except asyncio.LimitOverrunError as error:
            await reader.readexactly(error.consumed)
            complete = False
            continue
        if not complete:
            raise wire.RpcError(wire.INVALID_REQUEST, f"a request may have {wire.REQUEST_LIMIT} bytes at most")
        return line


def _error(id: Any, error: wire.RpcError) -> bytes:
    return wire.encode_message({"id": id, "error": {"code": error.code, "message": str(error)}})
