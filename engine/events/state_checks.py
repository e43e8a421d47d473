"""Checks what ``state.json`` holds, which a damaged disk may have changed.

Without msgspec, whose import takes 25 ms: ``mla-tui ls`` reads nothing else of most runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from profiles.printable import one_line

MAX_PID = 1 << 31
_MAX_NUMBER, _MAX_COUNT = 1e200, 1 << 53
_IDENTITY = ("pid", "start_ticks", "attempt")
_SHOWN = ("name", "phase", "reason", "backend", "profile", "version", "host")


def drop_invalid(state: dict[str, Any]) -> dict[str, Any]:
    """Return ``state`` without values of the wrong type, and with its texts on one line."""
    valid = {key: value for key, value in state.items() if key not in _CHECKS or _CHECKS[key](value)}
    return valid | {key: one_line(valid[key]) for key in _SHOWN if valid.get(key)}


def is_process(value: Any) -> bool:
    """Return whether ``value`` can be the identity of a process (``engine/host/process.py``), or None."""
    if value is None:
        return True
    if type(value) is not dict or not all(map(_is_count, map(value.get, _IDENTITY))):
        return False
    return (value.get("pid") or 0) < MAX_PID


def _is_text(value: Any) -> bool:
    return value is None or type(value) is str


def _is_count(value: Any) -> bool:
    return value is None or (type(value) is int and 0 <= value < _MAX_COUNT)


def _is_number(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and -_MAX_NUMBER < value < _MAX_NUMBER)


def _is_object(value: Any) -> bool:
    return value is None or type(value) is dict


def _is_exit(value: Any) -> bool:
    return value is None or (type(value) is dict and _is_number(value.get("code")))


_TEXTS = ("id", "name", "phase", "reason", "backend", "profile", "checkpoint", "version", "host", "boot", "data")
_COUNTS = ("step", "steps", "micro", "accum", "context", "attempt", "start_attempt", "at", "hooks_at")
_NUMBERS = ("loss", "val_loss", "bits_per_byte", "tok_s", "started", "ended", "launched", "checkpoint_bytes")
_CHECKS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(_TEXTS, _is_text),
    **dict.fromkeys(_COUNTS, _is_count),
    **dict.fromkeys(_NUMBERS, _is_number),
    **dict.fromkeys(("supervisor", "trainer"), is_process),
    "live": _is_object,
    "exit": _is_exit,
}
