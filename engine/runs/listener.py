"""Accepts connections on the log socket: only from our own user, up to a limit; restores the socket's file."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

from engine.events import wire
from engine.host.files import write_stderr

MAX_CLIENTS = 128
# Descriptors a supervisor needs beside its clients: its files, pipes to a trainer, the state it saves, the GPU.
RESERVED_DESCRIPTORS = 40
CHECK_INTERVAL = 1.0  # seconds between checks of the socket's file
RETRY_DELAY = 0.2  # seconds

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def max_clients() -> int:
    """Return how many clients fit into the limit of open files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MAX_CLIENTS
    return max(1, min(MAX_CLIENTS, soft - RESERVED_DESCRIPTORS))


class Listener:
    """Accepts connections of our own user at ``path`` and runs ``serve`` for each in its own task."""

    def __init__(self, path: Path, serve: Serve) -> None:
        self.path = path
        self._serve = serve
        self._clients: set[asyncio.Task[None]] = set()
        self._sock: socket.socket | None = None
        self._file_id: tuple[int, int] | None = None  # device and inode of our socket
        self._accepting: asyncio.Task[None] | None = None
        self._checking: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen; where the directory cannot be written, as soon as it can."""
        self._listen()
        self._checking = asyncio.create_task(self._restore_socket())

    async def close(self, grace: float) -> None:
        """Remove the socket, let the clients read for ``grace`` seconds, then disconnect them."""
        await _cancel([self._checking])
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
        await asyncio.sleep(grace)
        await _cancel([self._accepting, *self._clients])
        if self._sock is not None:
            self._sock.close()

    def _listen(self) -> None:
        try:
            sock = wire.listen(self.path)
            self._file_id = _file_id(self.path)
        except OSError as error:
            if self._file_id is not None or self._sock is None:
                write_stderr(f"log.sock: {error}; clients read the files until it can be created")
            self._file_id = None
            return
        old, self._sock = self._sock, sock
        if self._accepting is not None:
            self._accepting.cancel()
        if old is not None:
            old.close()
        self._accepting = asyncio.create_task(self._accept(sock))

    async def _restore_socket(self) -> None:
        """Create the socket again when its file is gone or is not ours."""
        while True:
            await asyncio.sleep(CHECK_INTERVAL)
            if self._file_id is None or _file_id(self.path) != self._file_id:
                self._listen()

    async def _accept(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(sock)
            except OSError:  # out of descriptors, or the client is gone already
                await asyncio.sleep(RETRY_DELAY)
                continue
            uid = wire.peer_uid(connection)
            if uid is not None and uid != os.getuid():
                connection.close()
            elif len(self._clients) >= (limit := max_clients()):
                with contextlib.suppress(OSError):
                    connection.setblocking(False)
                    connection.send(wire.busy_error(limit))
                connection.close()
            else:
                task = asyncio.create_task(self._handle(connection))
                self._clients.add(task)
                task.add_done_callback(self._clients.discard)

    async def _handle(self, connection: socket.socket) -> None:
        """Serve one connection to its end. No error of it may reach another connection, or pass silently."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=wire.REQUEST_LIMIT)
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, connection)
        except OSError:
            connection.close()
            return
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        try:
            await self._serve(reader, writer)
        except ConnectionError:
            pass
        except Exception as error:
            write_stderr(f"log.sock: a connection failed: {error!r}")
        finally:
            writer.close()


def _file_id(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


async def _cancel(tasks: list[asyncio.Task[None] | None]) -> None:
    alive = [task for task in tasks if task is not None]
    for task in alive:
        task.cancel()
    await asyncio.gather(*alive, return_exceptions=True)
