"""Malformed requests for the log socket: almost right, and wrong in every possible way."""

from __future__ import annotations

import json
import random
import socket
from pathlib import Path
from typing import Any

from engine.events import wire

NUMBERS = (
    "0",
    "-1",
    "1e999",
    "NaN",
    "-Infinity",
    "9" * 400,
    "9" * 5000,
    "1.5",
    "true",
    "null",
    '"7"',
    str(2**63),
    "{}",
)
NAMES = ("loss", "device_used", "", "\\u0000", "\\ud800", "x" * 300, "__class__")
METHODS = ("hello", "status", "history", "subscribe", "dance", "event", "", "\\n", "set", "resume", "hello\\u0000")


def value(rng: random.Random, depth: int = 0) -> str:
    """Return random JSON."""
    kind = rng.randrange(6 if depth < 3 else 3)
    if kind == 0:
        return rng.choice(NUMBERS)
    if kind < 3:
        return json.dumps(rng.choice(NAMES))
    inside = [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind == 3:
        return "[" + ",".join(inside) + "]"
    if kind == 4:
        return "{" + ",".join(f"{json.dumps(rng.choice(NAMES))}:{v}" for v in inside) + "}"
    depth = rng.choice((10, 500, 3000))
    return "[" * depth + "]" * depth


def request(rng: random.Random) -> bytes:
    """Return one request, mostly of the right form, without the newline."""
    fields = {
        **{"from": value(rng), "points": rng.choice(NUMBERS), "since": rng.choice(NUMBERS), "until": value(rng)},
        **{"series": rng.choice((value(rng), '["loss","loss","tok_s"]', "[" + ",".join(['"loss"'] * 5000) + "]"))},
        **{"changes": value(rng), "by": value(rng), "id": value(rng), "kind": '"progress"', "step": value(rng)},
    }
    chosen = rng.sample(sorted(fields), rng.randrange(len(fields)))
    params = "{" + ",".join(f'"{name}":{fields[name]}' for name in chosen) + "}"
    id = rng.choice((*NUMBERS, "1", "2", '"x"', "[1]"))
    method = json.dumps(rng.choice(METHODS)) if rng.random() < 0.95 else value(rng)
    line = f'{{"id":{id},"method":{method},"params":{params if rng.random() < 0.9 else value(rng)}}}'.encode()
    kind = rng.random()
    if kind < 0.1:
        return rng.randbytes(rng.randrange(200)).replace(b"\n", b"")
    if kind < 0.2:
        bit = rng.randrange(8 * len(line))
        line = line[: bit // 8] + bytes([line[bit // 8] ^ 1 << bit % 8]) + line[bit // 8 + 1 :]
        return line.replace(b"\n", b"")
    if kind < 0.22:
        return line[:-1] + b" " * rng.choice((wire.REQUEST_LIMIT, 3 * wire.REQUEST_LIMIT)) + b"}"
    return line[: rng.randrange(len(line))] if kind < 0.3 else line


class Attacker:
    """A raw connection that reads no more than it needs to."""

    def __init__(self, path: Path) -> None:
        self.sock = wire.connect(path)
        self.sock.settimeout(30)
        self._read = b""

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def line(self) -> bytes:
        while b"\n" not in self._read:
            data = self.sock.recv(1 << 16)
            if not data:
                raise ConnectionError("closed by the server")
            self._read += data
        line, _, self._read = self._read.partition(b"\n")
        return line

    def hello(self) -> dict[str, Any]:
        """Send hello; return its answer, skipping whatever else comes first."""
        self.send(b'\n{"id":"sane","method":"hello"}\n')
        while True:
            message = json.loads(self.line())
            if message.get("id") == "sane":
                return dict(message["result"])

    def close(self) -> None:
        self.sock.close()


def fuzz(path: Path, count: int, rng: random.Random) -> None:
    """Send ``count`` requests over many connections: whole, cut, many at once, byte by byte, or abandoned half-way."""
    sent = 0
    while sent < count:
        client = Attacker(path)
        mode = rng.randrange(4)
        lines = [request(rng) for _ in range(rng.randrange(1, 40))]
        try:
            if mode == 0:
                client.send(b"\n".join(lines)[: 200 << 10] + b"\n")
                client.hello()
            elif mode == 1:
                for line in lines:
                    client.send(line + b"\n")
                    client.hello()
            elif mode == 2:
                for i in range(min(len(lines[0]), 300)):
                    client.send(lines[0][i : i + 1])
                client.hello()
            else:
                client.send(b"\n".join(lines)[: 60 << 10])  # and disconnect in the middle of a line
                client.sock.shutdown(rng.choice((socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR)))
        except (BrokenPipeError, ConnectionError):
            if mode != 3:
                raise
        sent += len(lines)
        client.close()
