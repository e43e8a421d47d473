"""What the fields of a record must be, so that no reader behind the door has to ask.

A bit that flips on a disk leaves JSON that still parses: a text where a number was, a number of four hundred digits.
Such a line is damage like any other. Fields and kinds not named here pass, for a newer version may write them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Check = Callable[[Any], bool]
LARGEST = 1e200  # what is beyond it is no measurement, and sums of such numbers are infinite
WHOLE_LIMIT = 1 << 53  # whole numbers up to here are themselves as floats too
TIME_LIMIT = 1 << 32  # unix seconds, the year 2106


def is_number(value: Any) -> bool:
    return value is None or (type(value) in _NUMBERS and -LARGEST < value < LARGEST)


def is_whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < WHOLE_LIMIT


def is_time(value: Any) -> bool:
    return type(value) in _NUMBERS and 0 <= value < TIME_LIMIT


def is_text(value: Any) -> bool:
    return value is None or type(value) is str


def is_said(value: Any) -> bool:
    return type(value) is str


def is_answer(value: Any) -> bool:
    return type(value) is bool


def is_maybe_whole(value: Any) -> bool:
    return value is None or is_whole(value)


def is_span(value: Any) -> bool:
    """A number, or a minute's minimum and maximum."""
    if type(value) is list:
        return len(value) == 2 and all(v is not None and is_number(v) for v in value)
    return is_number(value)


def is_change(value: Any) -> bool:
    return type(value) is dict and all(type(pair) is list and len(pair) == 2 for pair in value.values())


def is_object(value: Any) -> bool:
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
_COUNTS = dict.fromkeys(("micro", "accum", "context", "tokens"), is_maybe_whole)
# kind → what must be there, and what must be right where it is there
SHAPES: dict[str, tuple[dict[str, Check], dict[str, Check]]] = {
    "step": ({"t": is_time, "step": is_whole}, {**dict.fromkeys(STEP_NUMBERS, is_number), **_COUNTS}),
    "val": ({"step": is_whole}, {"loss": is_number, "bucket": is_text, "tokens": is_number}),
    "telemetry": ({"t": is_time}, dict.fromkeys(TELEMETRY_NUMBERS, is_span)),
    "state": ({"t": is_time, "phase": is_said}, {"reason": is_text}),
    "start": (
        {},
        {
            **{"resumed_from": is_maybe_whole, "params": is_number, "device": is_text},
            **{"plan": is_object, "versions": is_object},
        },
    ),
    "edit": ({"ok": is_answer, "changed": is_change, "step": is_whole}, {"why": is_text, "by": is_text}),
    "rewind": ({"step": is_whole, "cursor": is_object}, {"why": is_text}),
    "checkpoint": (
        {"ok": is_answer},
        {
            **{"path": is_text, "step": is_maybe_whole, "bytes": is_number, "why": is_text},
            **{"seconds": is_number, "stall_s": is_number},
        },
    ),
    "exit": ({}, {"code": is_number, "signal": is_text, "why": is_text}),
    "oom": ({}, {"where": is_text, "wanted": is_number, "action": is_text, "parts": is_object}),
    "memory": ({}, {"parts": is_object, "measured": is_object, **_COUNTS, "sequences": is_maybe_whole}),
    "alert": ({}, {"what": is_text, "text": is_text}),
    "log": ({}, {"level": is_text, "text": is_text, "rank": is_maybe_whole}),
    "progress": (
        {},
        {"step": is_maybe_whole, "micro_done": is_maybe_whole, "micro_of": is_maybe_whole, "tok_s": is_number},
    ),
}
_COMMON: dict[str, Check] = {"t": is_time, "attempt": is_whole, "id": is_text}


def _sorted_out(needed: dict[str, Check], known: dict[str, Check]) -> tuple[Any, ...]:
    """What must be there, the names of plain numbers (nearly all there is in a log), and the other checks."""
    rest = {name: check for name, check in {**_COMMON, **known}.items() if name not in needed}
    numbers = tuple(name for name, check in rest.items() if check is is_number)
    return tuple(needed.items()), numbers, tuple((n, c) for n, c in rest.items() if c is not is_number)


_CHECKS = {kind: _sorted_out(*shape) for kind, shape in SHAPES.items()}
_OTHER_KINDS = _sorted_out({}, {})


def fits(record: Any) -> bool:
    """Whether ``record`` is one that every reader can take."""
    if type(record) is not dict:
        return False
    kind = record.get("kind")
    if type(kind) is not str:
        return False
    needed, numbers, others = _CHECKS.get(kind, _OTHER_KINDS)
    for name, check in needed:
        if not check(record.get(name)):
            return False
    for name in numbers:
        value = record.get(name)
        if value is not None and (type(value) not in _NUMBERS or not -LARGEST < value < LARGEST):
            return False
    return all(check(record[name]) for name, check in others if name in record)
