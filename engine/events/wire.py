"""Encodes and decodes messages of the log socket: JSON-RPC 2.0 without batches, one object per line.

Specification: https://www.jsonrpc.org/specification
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar

import msgspec

from engine.events.decode import convert, decode
from engine.events.marks import Mark
from engine.events.requests import REQUESTS, CommandId, Request
from engine.events.series import Bucket
from engine.events.types import Event, Memory
from engine.host.struct_json import DAMAGED_JSON, encode, to_dict
from profiles.printable import brief

REQUEST_LIMIT = 64 << 10
ANSWER_LIMIT = 16 << 20  # bytes; a response may be longer than a request
PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, REFUSED = -32700, -32600, -32601, -32602, -32000
BUSY = -32001
BACKLOG = 128


S = TypeVar("S", bound=msgspec.Struct)


class RpcError(Exception):
    """An error response: its code and one line of text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class HelloAnswer(msgspec.Struct, frozen=True):
    """The answer to ``hello``."""

    version: str  # of mla-tui
    pid: int  # of the supervisor
    run: str  # its id
    at: int  # offset up to which the log was read


class SubscribeAnswer(msgspec.Struct, frozen=True):
    """The answer to ``subscribe``, before the first event."""

    start: int = msgspec.field(name="from")  # offset of the log


class CommandAnswer(msgspec.Struct, frozen=True):
    """The answer to a request to the trainer, before it is carried out."""

    id: str  # of the command; the record that answers it has it too
    state: str = "pending"


class HistoryAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to ``history``: the series of a run, up to an offset of its log."""

    at: int  # ``subscribe`` from here continues where the answer ends
    series: dict[str, list[Bucket]]
    part: tuple[int, int | None]  # log offsets of the steps asked for; None for the end of the log
    marks: list[Mark] | None = None  # if they were asked for
    memory: Memory | None = None  # the newest memory record; comes with the marks
    newest: dict[str, float] = {}  # of each series, without ``until``; a bucket holds only a mean


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
    """Encode a message in ASCII characters: it may quote what a client has sent."""
    return json.dumps({"jsonrpc": "2.0", **message}, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def encode_answer(id: str | int | None, answer: msgspec.Struct) -> bytes:
    """Encode the result of a request."""
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}\n' % (json.dumps(id).encode(), encode(answer))


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


class Sender(msgspec.Struct, frozen=True):
    """What the parameters of a request to the trainer also say."""

    by: str = "socket"  # who sends it
    id: CommandId | None = None  # of the command; given, so that one sent twice is carried out once


class Call(msgspec.Struct, frozen=True):
    """A request as it is sent; ``id`` is None for a notification."""

    method: str
    id: str | int | None = None
    params: msgspec.Raw = msgspec.Raw(b"{}")

    def request(self) -> Request:
        """Return the request. Raise ``RpcError``."""
        if self.method not in REQUESTS:
            raise RpcError(METHOD_NOT_FOUND, f"{brief(self.method)[1:-1]}: no such method")
        return self._decoded(REQUESTS[self.method])

    def sender(self) -> Sender:
        """Return who sends a request to the trainer. Raise ``RpcError``."""
        return self._decoded(Sender)

    def _decoded(self, kind: type[S]) -> S:
        try:
            return msgspec.json.decode(self.params, type=kind)
        except DAMAGED_JSON as error:
            raise RpcError(INVALID_PARAMS, f"{brief(self.method)[1:-1]}: {self._fault(error)}") from None

    def _fault(self, error: Exception) -> str:
        """Return what is wrong with the parameters: the field, its value and what it should be."""
        if isinstance(error, RecursionError):
            return "params are nested too deep"
        text, _, path = str(error).replace("`", "").partition(" - at $.")
        if not path:
            return f"params: {text[:1].lower()}{text[1:]}"
        with contextlib.suppress(KeyError, *DAMAGED_JSON):
            field = path.partition("[")[0].partition(".")[0]
            path += f": {brief(msgspec.json.decode(self.params)[field])}"
        return f"{path}: {text[:1].lower()}{text[1:]}"


_CALL = msgspec.json.Decoder(Call)


def decode_call(line: bytes) -> Call:
    """Return what a client asks. Raise ``RpcError``."""
    try:
        return _CALL.decode(line)
    except msgspec.ValidationError as error:
        text = str(error).replace("`", "").replace("$.", "")
        raise RpcError(INVALID_REQUEST, f"send one object with method, id and params: {text}") from None
    except DAMAGED_JSON:
        raise RpcError(PARSE_ERROR, "the line is not JSON") from None


def encode_request(id: int, request: Request, /, **also: str) -> bytes:
    """Encode a request; ``also``: further parameters."""
    params = {key: value for key, value in to_dict(request).items() if key != "method"}
    return encode_message({"id": id, "method": request.method, "params": {**params, **also}})


@contextlib.contextmanager
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
