"""Reads and writes msgspec structs as JSON, also where a value, or the file, is not as it should be."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from engine.host.files import read_json, write_atomic
from profiles.errors import UserError
from profiles.reader import read_bytes

DAMAGED_JSON = (msgspec.DecodeError, UnicodeError, RecursionError)  # what decoding raises
S = TypeVar("S", bound=msgspec.Struct)


def _base_value(value: Any) -> Any:
    """Return a value of a subclass, such as torch's version or numpy's float64, as one of its base class."""
    bases: tuple[Any, ...] = (str, int, float, dict, list)
    for base in bases:
        if isinstance(value, base):
            return base(value)
    raise NotImplementedError


_ENCODER = msgspec.json.Encoder(enc_hook=_base_value)


def encode(value: msgspec.Struct) -> bytes:
    """Return ``value`` as one line of JSON. NaN and infinity become null, because JSON has neither."""
    try:
        return _ENCODER.encode(value)
    except (UnicodeEncodeError, OverflowError):  # a file name that is not UTF-8, an integer of many digits
        return json.dumps(to_dict(value), separators=(",", ":")).encode()


def to_dict(value: msgspec.Struct) -> dict[str, Any]:
    """Return the fields of ``value``, as they are written."""
    found: dict[str, Any] = msgspec.to_builtins(value, enc_hook=_base_value)
    return found


def read_struct(path: Path, kind: type[S]) -> S | None:
    """Return what a file holds; None if it is missing or damaged, or a field is missing or of the wrong type."""
    try:
        return msgspec.json.decode(read_bytes(path), type=kind)
    except (OSError, UserError, *DAMAGED_JSON):
        return None


def read_intact(path: Path, kind: type[S]) -> S | None:
    """Return what a file holds, without fields of the wrong type; None if a field is then missing, or the file is."""
    return read_struct(path, kind) or intact(read_json(path), kind)


def intact(content: Any, kind: type[S]) -> S | None:
    """Return the struct in a parsed JSON object, without fields of the wrong type; None if a field is then missing."""
    given = content if isinstance(content, dict) else {}
    fields = {}
    for field in msgspec.structs.fields(kind):
        with contextlib.suppress(KeyError, *DAMAGED_JSON):
            fields[field.name] = msgspec.convert(given[field.encode_name], field.type)
        if field.required and field.name not in fields:
            return None
    return kind(**fields)


def write_struct(path: Path, value: msgspec.Struct) -> None:
    """Write ``value`` to ``path`` atomically. Raise ``OSError``."""
    write_atomic(path, encode(value))
