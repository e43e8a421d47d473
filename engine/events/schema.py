"""Validates the fields of log records on input, so that readers need not check types.

A flipped bit on a disk may leave valid JSON: a string in place of a number, or a number of 400 digits. Such a line
counts as damaged. Unknown fields and kinds pass, because a newer version may write them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Check = Callable[[Any], bool]
MAX_NUMBER = 1e200  # larger ones are no measurements, and their sums would be infinite
MAX_COUNT = 1 << 53  # floats represent every smaller integer exactly
MAX_TIME = 1 << 32  # unix seconds, the year 2106


def is_optional_number(value: Any) -> bool:
    return value is None or (type(value) in _NUMBERS and -MAX_NUMBER < value < MAX_NUMBER)


def is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < MAX_COUNT


def is_time(value: Any) -> bool:
    return type(value) in _NUMBERS and 0 <= value < MAX_TIME


def is_optional_string(value: Any) -> bool:
    return value is None or type(value) is str


def is_string(value: Any) -> bool:
    return type(value) is str


def is_bool(value: Any) -> bool:
    return type(value) is bool


def is_optional_count(value: Any) -> bool:
    return value is None or is_count(value)


def is_number_or_range(value: Any) -> bool:
    """Return whether ``value`` is a number or a pair [minimum, maximum]."""
    if type(value) is list:
        return len(value) == 2 and all(v is not None and is_optional_number(v) for v in value)
    return is_optional_number(value)


def is_changes(value: Any) -> bool:
    return type(value) is dict and all(type(pair) is list and len(pair) == 2 for pair in value.values())


def is_optional_object(value: Any) -> bool:
    return value is None or type(value) is dict


_NUMBERS = (int, float)
STEP_NUMBERS = (
    *("loss", "lr", "grad_norm", "tok_s", "step_s", "data_s", "device_peak", "host_states", "mfu"),
    *("unified_active", "unified_cache", "unified_peak", "unified_limit"),
)
TELEMETRY_NUMBERS = (
    *("device_used", "device_total", "device_util", "power_w", "temp_c"),
    *("rss", "ram_used", "ram_total", "swap", "disk_free"),
)
_COUNTS = dict.fromkeys(("micro", "accum", "context", "tokens"), is_optional_count)
# kind → (required fields, optional fields)
SCHEMAS: dict[str, tuple[dict[str, Check], dict[str, Check]]] = {
    "step": ({"t": is_time, "step": is_count}, {**dict.fromkeys(STEP_NUMBERS, is_optional_number), **_COUNTS}),
    "val": (
        {"step": is_count},
        {
            **{"loss": is_optional_number, "bucket": is_optional_string, "tokens": is_optional_number},
            "sources": is_optional_object,
        },
    ),
    "telemetry": ({"t": is_time}, dict.fromkeys(TELEMETRY_NUMBERS, is_number_or_range)),
    "state": ({"t": is_time, "phase": is_string}, {"reason": is_optional_string}),
    "start": (
        {},
        {
            **{"resumed_from": is_optional_count, "params": is_optional_number, "device": is_optional_string},
            **{"plan": is_optional_object, "versions": is_optional_object, "data": is_optional_object},
        },
    ),
    "edit": (
        {"ok": is_bool, "changed": is_changes, "step": is_count},
        {"why": is_optional_string, "by": is_optional_string},
    ),
    "spec": ({"step": is_count, "values": is_optional_object}, {}),
    "rewind": ({"step": is_count, "cursor": is_optional_object}, {"why": is_optional_string}),
    "checkpoint": (
        {"ok": is_bool},
        {
            **{
                "path": is_optional_string,
                "step": is_optional_count,
                "bytes": is_optional_number,
                "why": is_optional_string,
            },
            **{"seconds": is_optional_number, "stall_s": is_optional_number},
        },
    ),
    "exit": ({}, {"code": is_optional_number, "signal": is_optional_string, "why": is_optional_string}),
    "oom": (
        {},
        {
            "where": is_optional_string,
            "wanted": is_optional_number,
            "action": is_optional_string,
            "parts": is_optional_object,
        },
    ),
    "memory": (
        {},
        {"parts": is_optional_object, "measured": is_optional_object, **_COUNTS, "sequences": is_optional_count},
    ),
    "alert": ({}, {"what": is_optional_string, "text": is_optional_string}),
    "log": ({}, {"level": is_optional_string, "text": is_optional_string, "rank": is_optional_count}),
    "progress": (
        {},
        {
            "step": is_optional_count,
            "micro_done": is_optional_count,
            "micro_of": is_optional_count,
            "tok_s": is_optional_number,
        },
    ),
}
_COMMON: dict[str, Check] = {"t": is_time, "attempt": is_count, "id": is_optional_string}


def _compiled(required: dict[str, Check], optional: dict[str, Check]) -> tuple[Any, ...]:
    """Return the required fields, the names of optional numbers (most fields of a log), and the other optional fields.

    ``is_valid`` checks the numbers inline, which is faster.
    """
    rest = {name: check for name, check in {**_COMMON, **optional}.items() if name not in required}
    numbers = tuple(name for name, check in rest.items() if check is is_optional_number)
    return tuple(required.items()), numbers, tuple((n, c) for n, c in rest.items() if c is not is_optional_number)


_CHECKS = {kind: _compiled(*schema) for kind, schema in SCHEMAS.items()}
_OTHER_KINDS = _compiled({}, {})


def is_valid(record: Any) -> bool:
    """Return whether ``record`` matches the schema of its kind."""
    if type(record) is not dict:
        return False
    kind = record.get("kind")
    if type(kind) is not str:
        return False
    required, numbers, others = _CHECKS.get(kind, _OTHER_KINDS)
    for name, check in required:
        if not check(record.get(name)):
            return False
    for name in numbers:
        value = record.get(name)
        if value is not None and (type(value) not in _NUMBERS or not -MAX_NUMBER < value < MAX_NUMBER):
            return False
    return all(check(record[name]) for name, check in others if name in record)
