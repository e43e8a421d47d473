"""Encodes and decodes messages of the log socket: JSON-RPC 2.0 without batches, one object per line.

Specification: https://www.jsonrpc.org/specification
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import NoneType
from typing import Any

import msgspec

from engine.events.decode import convert, decode
from engine.events.marks import Mark
from engine.events.series import Bucket
from engine.events.types import Event, Memory
from engine.host.struct_json import encode

REQUEST_LIMIT = 64 << 10
ANSWER_LIMIT = 16 << 20  # bytes; a response may be longer than a request
PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, REFUSED = -32700, -32600, -32601, -32602, -32000
BUSY = -32001
BACKLOG = 128


class RpcError(Exception):
    """An error response: its code and one line of text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class HistoryAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to ``history``: the series of a run, up to an offset of its log."""

    at: int  # ``subscribe`` from here continues where the answer ends
    series: dict[str, list[Bucket]]
    part: tuple[int, int | None]  # log offsets of the steps asked for; None for the end of the log
    marks: list[Mark] | None = None  # if they were asked for
    memory: Memory | None = None  # the newest memory record; comes with the marks


class Fault(msgspec.Struct, frozen=True):
    code: int
    message: str


class Message(msgspec.Struct, frozen=True):
    """What the server sends: the result of a request or an error, or an event."""

    result: msgspec.Raw = msgspec.Raw(b"{}")
    error: Fault | None = None
    params: msgspec.Raw | None = None


class _Offset(msgspec.Struct):
    at: int | None = None


_MESSAGE, _OFFSET = msgspec.json.Decoder(Message), msgspec.json.Decoder(_Offset)


def encode_message(message: dict[str, Any]) -> bytes:
    """Encode a request or an error, of ASCII characters: it may quote what a client has sent."""
    return json.dumps({"jsonrpc": "2.0", **message}, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def encode_history(id: Any, answer: HistoryAnswer) -> bytes:
    return msgspec.json.encode({"jsonrpc": "2.0", "id": id, "result": answer}) + b"\n"


def encode_event(event: Event, at: int | None = None) -> bytes:
    """Encode an event; ``at`` is its offset in the log."""
    offset = b"" if at is None else b'"at":%d,' % at
    return b'{"jsonrpc":"2.0","method":"event","params":{%b%b}\n' % (offset, encode(event)[1:])


def decode_message(line: bytes) -> Message:
    """Return what the server sent. Raise ``ValueError``."""
    try:
        return _MESSAGE.decode(line)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None


def decode_event(line: bytes) -> tuple[int | None, Event] | None:
    """Return the event that the server sent, with its offset if it is logged; None if the line is no event."""
    try:
        message = _MESSAGE.decode(line)
        if message.params is None:
            return None
        at, event = _OFFSET.decode(message.params).at, decode(message.params)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _decode_event_lenient(line)
    return None if event is None else (at, event)


def _decode_event_lenient(line: bytes) -> tuple[int | None, Event] | None:
    """Decode what msgspec refuses: a file name that is not UTF-8."""
    try:
        params = json.loads(line)["params"]
        at, event = params.get("at"), convert(params)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return (at, event) if event is not None and type(at) in (int, NoneType) else None


def busy_error(limit: int) -> bytes:
    """Return the error for a client that connects when ``limit`` clients are connected already."""
    return encode_message(
        {"id": None, "error": {"code": BUSY, "message": f"{limit} clients are connected, the maximum"}}
    )


def short_repr(value: Any) -> str:
    """Return ``repr(value)`` cut to 60 characters, for error messages about untrusted input."""
    try:
        text = repr(value)
    except RecursionError:
        text = type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."


def decode_request(line: bytes) -> tuple[Any, str, dict[str, Any]]:
    """Return ``(id, method, params)``; the id is None for a notification. Raise ``RpcError``."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):  # RecursionError: nested too deep
        raise RpcError(PARSE_ERROR, "the line is not JSON") from None
    if not isinstance(message, dict) or not isinstance(message.get("method"), str):
        raise RpcError(INVALID_REQUEST, "send one object with a method and params")
    if not isinstance(message.get("id"), (str, int, NoneType)):  # NaN, for example, could not be sent back
        raise RpcError(INVALID_REQUEST, "id must be a string or an integer")
    params = message.get("params", {})
    if not isinstance(params, dict):
        raise RpcError(INVALID_PARAMS, "params must be an object")
    return message.get("id"), message["method"], params


@contextmanager
def socket_address(path: Path) -> Iterator[str]:
    """Yield an address for ``path`` within the 107 bytes of a Unix socket address, if needed via /proc/self/fd."""
    if len(os.fsencode(path)) <= 100 or not os.path.isdir("/proc/self/fd"):
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def listen(path: Path) -> socket.socket:
    """Return a listening socket at ``path`` that only its owner may use; replace a stale one. Raise ``OSError``."""
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
    """Connect to the log socket at ``path``. Raise ``OSError`` if no process listens."""
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
    """Return the uid of the other process; None if the platform does not report it."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(raw[4:8], "little")
