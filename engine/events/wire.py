"""The shared log socket's framing: JSON-RPC 2.0 without batches, one object a line (https://www.jsonrpc.org)."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import NoneType
from typing import Any

REQUEST_LIMIT = 64 << 10
ANSWER_LIMIT = 16 << 20  # a client reads longer lines than it may send
PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, REFUSED = -32700, -32600, -32601, -32602, -32000
BUSY = -32001
BACKLOG = 128


class RpcError(Exception):
    """An error answer: its code and one line of text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def encode(message: dict[str, Any]) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **message}, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def busy_error(most: int) -> bytes:
    """What a client hears that comes when ``most`` are there already."""
    return encode({"id": None, "error": {"code": BUSY, "message": f"{most} clients are connected, which is the most"}})


def short_repr(value: Any) -> str:
    """A value from outside, on one line and not too long of it."""
    try:
        text = repr(value)
    except RecursionError:
        text = type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."


def decode_request(line: bytes) -> tuple[Any, str, dict[str, Any]]:
    """``(id, method, params)``; the id is None for a notification. Raises ``RpcError``."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):  # nested too deep to be meant
        raise RpcError(PARSE_ERROR, "the line is not JSON") from None
    if not isinstance(message, dict) or not isinstance(message.get("method"), str):
        raise RpcError(INVALID_REQUEST, "write one object with a method and params")
    if not isinstance(message.get("id"), (str, int, NoneType)):  # NaN could not even be sent back
        raise RpcError(INVALID_REQUEST, "id must be a text or a whole number")
    params = message.get("params", {})
    if not isinstance(params, dict):
        raise RpcError(INVALID_PARAMS, "params must be an object")
    return message.get("id"), message["method"], params


@contextmanager
def socket_address(path: Path) -> Iterator[str]:
    """An address for ``path`` within the 107 bytes a Unix socket allows, by way of an open directory."""
    if len(os.fsencode(path)) <= 100 or not os.path.isdir("/proc/self/fd"):
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def listen(path: Path) -> socket.socket:
    """A listening socket at ``path``, for its owner alone, in a dead predecessor's place. Raises ``OSError``."""
    path.unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        with socket_address(path) as address:
            server.bind(address)
        server.listen(BACKLOG)
    except BaseException:
        server.close()
        raise
    finally:
        os.umask(before)
    server.setblocking(False)
    return server


def connect(path: Path) -> socket.socket:
    """A connection to the log socket at ``path``. Raises ``OSError`` where nobody listens."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(5)
    try:
        with socket_address(path) as address:
            client.connect(address)
    except BaseException:
        client.close()
        raise
    return client


def peer_uid(connection: socket.socket) -> int | None:
    """The user at the other end; None where the platform does not tell."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(raw[4:8], "little")
