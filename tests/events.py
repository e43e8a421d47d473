"""Reads events as a user sees them: the JSON of the log, the socket and ``mla-tui watch --json``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from engine.events.log import read_all
from engine.events.series import Bucket
from engine.events.types import Event
from engine.host.struct_json import encode

E = TypeVar("E", bound=Event)


def as_json(event: Event) -> dict[str, Any]:
    """Return the fields of an event as they are written."""
    fields: dict[str, Any] = json.loads(encode(event))
    return fields


def all_fields(event: Event) -> dict[str, Any]:
    """Return the fields of an event, those that are not written too."""
    return {**dict.fromkeys(event.__struct_fields__), **as_json(event)}


def records(log: Path, start: int = 0) -> list[dict[str, Any]]:
    """Return the records of a log from an offset on, as they are written."""
    content = log.read_bytes()
    return [json.loads(content[at:].partition(b"\n")[0]) for at, _ in read_all(log, start)]


def points(buckets: Iterable[Bucket]) -> list[list[Any]]:
    """Return ``[x, low, mean, high]`` of each bucket."""
    return [list(bucket[:4]) for bucket in buckets]


def of_kind(kind: type[E], events: Iterable[tuple[object, Event]]) -> list[E]:
    """Return the events of a kind, of pairs of offset and event."""
    return [event for _, event in events if isinstance(event, kind)]
