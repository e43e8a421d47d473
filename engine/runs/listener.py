"""The log socket's door: who may come in, how many, and that the door stays where clients look for it."""

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
# What a supervisor needs beside its clients: its files, pipes to a trainer it starts, a state it saves, the card.
RESERVED_DESCRIPTORS = 40
LOOK_EVERY = 1.0  # seconds between two looks at the socket's file
RETRY = 0.2

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def max_clients() -> int:
    """How many fit into the limit of open files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MAX_CLIENTS
    return max(1, min(MAX_CLIENTS, soft - RESERVED_DESCRIPTORS))


class Listener:
    """Accepts connections of our own user at ``path`` and hands each to ``serve``, in a task of its own."""

    def __init__(self, path: Path, serve: Serve) -> None:
        self.path = path
        self._serve = serve
        self._clients: set[asyncio.Task[None]] = set()
        self._sock: socket.socket | None = None
        self._file: tuple[int, int] | None = None  # device and inode of the socket we made
        self._accepting: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen; where the directory does not let us, as soon as it does."""
        self._listen()
        self._looking = asyncio.create_task(self._keep_listening())

    async def close(self, patience: float) -> None:
        """Take the socket away, let the clients read on for ``patience`` seconds, then hang up."""
        await _end([self._looking])
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
        await asyncio.sleep(patience)
        await _end([self._accepting, *self._clients])
        if self._sock is not None:
            self._sock.close()

    def _listen(self) -> None:
        try:
            sock = wire.listen(self.path)
            self._file = _file(self.path)
        except OSError as error:
            if self._file is not None or self._sock is None:
                write_stderr(f"log.sock: {error}; clients read the files until it can be made")
            self._file = None
            return
        before, self._sock = self._sock, sock
        if self._accepting is not None:
            self._accepting.cancel()
        if before is not None:
            before.close()
        self._accepting = asyncio.create_task(self._accept(sock))

    async def _keep_listening(self) -> None:
        """Make the socket again when its file is gone, or is another's."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            if self._file is None or _file(self.path) != self._file:
                self._listen()

    async def _accept(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(sock)
            except OSError:  # out of descriptors, or it was gone before we came
                await asyncio.sleep(RETRY)
                continue
            uid = wire.peer_uid(connection)
            if uid is not None and uid != os.getuid():
                connection.close()
            elif len(self._clients) >= (most := max_clients()):
                with contextlib.suppress(OSError):
                    connection.setblocking(False)
                    connection.send(wire.busy_error(most))
                connection.close()
            else:
                task = asyncio.create_task(self._talk(connection))
                self._clients.add(task)
                task.add_done_callback(self._clients.discard)

    async def _talk(self, connection: socket.socket) -> None:
        """One connection, to its end. Nothing that a client can do may go beyond this, or unheard."""
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
            write_stderr(f"log.sock: a connection ended by {error!r}")
        finally:
            writer.close()


def _file(path: Path) -> tuple[int, int] | None:
    try:
        there = path.lstat()
    except OSError:
        return None
    return there.st_dev, there.st_ino


async def _end(tasks: list[asyncio.Task[None] | None]) -> None:
    alive = [task for task in tasks if task is not None]
    for task in alive:
        task.cancel()
    await asyncio.gather(*alive, return_exceptions=True)
