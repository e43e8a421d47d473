"""Writes TensorBoard event files: TFRecords of ``tensorflow.Event`` messages with scalars.

A record is its length (8 bytes), the masked CRC-32C of those, the message, and the masked CRC-32C of that (TensorFlow,
``record_writer.h``). The messages are those of ``event.proto`` and ``summary.proto``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import BinaryIO

_POLYNOMIAL = 0x82F63B78  # of CRC-32C (Castagnoli), reversed
_VARINT, _DOUBLE, _BYTES, _FLOAT = 0, 1, 2, 5  # wire types of protocol buffers
_RESTART = b"\x08\x01"  # SessionLog.status = START


def _table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _table()


class EventFile:
    """An event file that is being written to ``stream``."""

    def __init__(self, stream: BinaryIO, t: float) -> None:
        self._stream = stream
        self._write(_event(t, None, _field(3, b"brain.Event:2")))

    def add(self, t: float, step: int, scalars: Iterable[tuple[str, float]]) -> None:
        """Add the values of a step, measured at ``t`` (unix seconds)."""
        values = (
            _field(1, _field(1, tag.encode()) + _key(2, _FLOAT) + struct.pack("<f", _in_range(value)))
            for tag, value in scalars
        )
        if summary := b"".join(values):
            self._write(_event(t, step, _field(5, summary)))

    def restart(self, t: float, step: int) -> None:
        """Say that the steps from ``step`` on are done again: readers drop what they have of them."""
        self._write(_event(t, step, _field(7, _RESTART)))

    def _write(self, message: bytes) -> None:
        length = struct.pack("<Q", len(message))
        self._stream.write(length + _masked_crc(length) + message + _masked_crc(message))


def crc32c(data: bytes) -> int:
    """Return the CRC-32C of ``data``."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def _masked_crc(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _event(t: float, step: int | None, what: bytes) -> bytes:
    at = b"" if step is None else _key(2, _VARINT) + _varint(step)
    return _key(1, _DOUBLE) + struct.pack("<d", t) + at + what


def _field(number: int, content: bytes) -> bytes:
    return _key(number, _BYTES) + _varint(len(content)) + content


def _key(number: int, wire_type: int) -> bytes:
    return _varint(number << 3 | wire_type)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _in_range(value: float) -> float:
    """Return ``value``, or the infinity that float32 has in its place."""
    return value if abs(value) < 3.4e38 else float("inf") if value > 0 else float("-inf")
