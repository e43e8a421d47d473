"""The log socket's server: what clients may ask, and the stream each of them reads at its own pace.

The log file is every client's queue. A client that does not read holds up its own reader and nothing else: it costs one
file offset, and it finds every record when it comes back.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any, Protocol

from engine.jobs import commands, wire
from engine.jobs.digest import Digest
from engine.jobs.log import Record, Tail, finite
from engine.jobs.store import Job
from engine.version import package_version

LIVE_KINDS = ("progress",)  # what a trainer may send past the log
SEND_BUFFER = 256 << 10


class Run(Protocol):
    """What the server needs to know of the run it speaks for."""

    job: Job
    digest: Digest

    def stop_without_trainer(self, id: str) -> None: ...

    def kill_trainer(self, id: str) -> None: ...

    def heard(self, record: Record) -> None: ...


class Server:
    def __init__(self, run: Run) -> None:
        self._run = run
        self._live: dict[str, tuple[int, Record]] = {}  # kind → (sequence, newest live-only record)
        self._live_count = 0
        self._changed = asyncio.Event()
        self._clients: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        sock = wire.listen(self._run.job.socket_path)
        self._server = await asyncio.start_unix_server(self._accept, sock=sock, limit=wire.REQUEST_LIMIT)

    async def close(self) -> None:
        """Let every client read to the end of the log, then hang up."""
        self.changed()
        self._run.job.socket_path.unlink(missing_ok=True)
        await asyncio.sleep(0.2)
        if self._server is not None:
            self._server.close()  # only now: asyncio leaves a connection it is about to accept open and unheard
        for task in self._clients:
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    def changed(self) -> None:
        """The log has grown or a live record has come: wake every stream."""
        self._changed.set()
        self._changed = asyncio.Event()

    def publish(self, record: Record) -> None:
        """Show a live-only record to whoever watches now; of each kind only the newest is kept."""
        self._live_count += 1
        self._live[record["kind"]] = (self._live_count, record)
        self.changed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        streams: list[asyncio.Task[None]] = []
        try:
            uid = wire.peer_uid(writer.get_extra_info("socket"))
            if uid is None or uid == os.getuid():
                await self._serve(reader, writer, streams)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            for stream in streams:
                stream.cancel()
            writer.close()
            self._clients.discard(task)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, streams: list[asyncio.Task[None]]
    ) -> None:
        writer.transport.set_write_buffer_limits(high=SEND_BUFFER)
        while True:
            id = None
            try:
                id, method, params = wire.decode_request(await _read_request(reader))
                if method == "event":
                    self._take_live(params)
                    continue
                if method == "subscribe":
                    start = _number(params, "from", 0)
                    writer.write(wire.encode({"id": id, "result": {"from": start}}))
                    streams.append(asyncio.create_task(self._stream(writer, start)))
                else:
                    writer.write(wire.encode({"id": id, "result": self._answer(method, params)}))
            except asyncio.IncompleteReadError:
                return
            except wire.RpcError as error:
                writer.write(_error(id, error))
            except ConnectionError:
                raise  # an OSError too, but there is nobody left to tell
            except OSError as error:
                writer.write(_error(id, wire.RpcError(wire.REFUSED, f"{method}: {error.strerror}")))
            await writer.drain()

    def _answer(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        run = self._run
        if method == "hello":
            return {"version": package_version(), "pid": os.getpid(), "job": run.job.id, "at": run.digest.at}
        if method == "status":
            return run.job.summary()
        if method == "history":
            names = params.get("series")
            if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
                raise wire.RpcError(wire.INVALID_PARAMS, "history: series must be a list of names")
            since, until = _optional(params, "since"), _optional(params, "until")
            series = run.digest.history.answer(names, _number(params, "points", 2000), since, until)
            return {"at": run.digest.at, "series": series}
        if method in commands.METHODS:
            by = str(params.pop("by", "socket"))
            id = commands.append(run.job.commands_path, method, params, by)
            if method == "stop":
                run.kill_trainer(id) if params.get("kill") is True else run.stop_without_trainer(id)
            return {"id": id, "state": "pending"}
        raise wire.RpcError(wire.METHOD_NOT_FOUND, f"{method}: no such method")

    def _take_live(self, record: dict[str, Any]) -> None:
        if record.get("kind") in LIVE_KINDS:
            self._run.heard(record)
            self.publish(finite(record))

    async def _stream(self, writer: asyncio.StreamWriter, start: int) -> None:
        """Send every record from ``start`` on, then what comes, waiting for the client where it is slow."""
        tail = Tail(self._run.job.log_path, start)
        seen = self._live_count
        try:
            while True:
                changed = self._changed
                while records := tail.poll():
                    for at, record in records:
                        writer.write(_event({"at": at, **record}))
                        await writer.drain()
                for count, record in sorted(self._live.values(), key=lambda live: live[0]):
                    if count > seen:
                        writer.write(_event(record))
                seen = self._live_count
                await writer.drain()
                await changed.wait()
        except ConnectionError:
            pass
        finally:
            tail.close()


async def _read_request(reader: asyncio.StreamReader) -> bytes:
    """One line. Raises ``RpcError`` where it is too long, after throwing it away, so that the next can be read."""
    whole = True
    while True:
        try:
            line = await reader.readuntil(b"\n")
        except asyncio.LimitOverrunError as error:
            await reader.readexactly(error.consumed)
            whole = False
            continue
        if not whole:
            raise wire.RpcError(wire.INVALID_REQUEST, f"a request may hold {wire.REQUEST_LIMIT} bytes")
        return line


def _event(record: Record) -> bytes:
    return wire.encode({"method": "event", "params": record})


def _error(id: Any, error: wire.RpcError) -> bytes:
    return wire.encode({"id": id, "error": {"code": error.code, "message": str(error)}})


def _number(params: dict[str, Any], name: str, default: int) -> int:
    value = params.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise wire.RpcError(wire.INVALID_PARAMS, f"{name}: {value!r} is not a whole number from 0 on")
    return value


def _optional(params: dict[str, Any], name: str) -> float | None:
    value = params.get(name)
    if value is not None and not isinstance(value, (int, float)):
        raise wire.RpcError(wire.INVALID_PARAMS, f"{name}: {value!r} is not a number")
    return value
