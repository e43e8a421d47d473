"""Decodes records: the only place where a line of JSON becomes an event."""

from __future__ import annotations

import json
from typing import Any, Union

import msgspec

from engine.events.types import KINDS, Event
from engine.host.struct_json import DAMAGED_JSON

_DECODER: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Union[tuple(KINDS.values())])  # noqa: UP007


class _Kind(msgspec.Struct):
    kind: str


_KIND_DECODER = msgspec.json.Decoder(_Kind)


def decode(line: bytes) -> Event | None:
    """Return the event in a line; None for a damaged line and for a kind that this version does not know."""
    try:
        event = _DECODER.decode(line)
    except (msgspec.ValidationError, RecursionError):
        return None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _decode_lenient(line)
    return event if event.t >= 0 else None  # a record without a time is damaged


def is_of_newer_version(line: bytes) -> bool:
    """Return whether a line that is no event is a record of a kind that this version does not know."""
    try:
        return _KIND_DECODER.decode(line).kind not in KINDS
    except DAMAGED_JSON:
        return False


def _decode_lenient(line: bytes) -> Event | None:
    """Decode what Python's json writes beyond JSON: NaN, which is read as null, and file names that are not UTF-8."""
    try:
        return convert(json.loads(line, parse_constant=lambda _: None))
    except (ValueError, RecursionError):
        return None


def convert(value: Any) -> Event | None:
    """Return the event in a parsed JSON object; None where it is none."""
    try:
        event: Event = msgspec.convert(value, _DECODER.type)
    except DAMAGED_JSON:
        return None
    return event if event.t >= 0 else None
