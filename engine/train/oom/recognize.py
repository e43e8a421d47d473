"""Recognizes out-of-memory errors, whichever library raises them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from engine.train.phases import BACKWARD, FORWARD, IDLE, REDUCE, Phases
from profiles.errors import UserError

HOST = "host"  # the kernel killed the trainer for its memory

T = TypeVar("T")

_REPORTED_AS = {IDLE: FORWARD, REDUCE: BACKWARD}  # the log knows forward, backward, optimizer, validation and host
_UNITS = {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_WANTED = re.compile(r"(?:allocate|need)\D{0,20}([\d.]+) (bytes|KiB|MiB|GiB)", re.IGNORECASE)
# Errors without their own class: torch's allocator for a CPU, the driver, libraries that CUDA calls,
# Triton when it loads a kernel, MLX.
_MESSAGES = re.compile(
    r"DefaultCPUAllocator: (can't|not enough)|(CUDA( driver)?( error)?:?|Triton Error \[CUDA\]:) out of memory"
    r"|CU\w+_STATUS_ALLOC_FAILED|Cuda failure \d* ?'out of memory'|\[(metal::)?malloc[^\]]*\]",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """``where`` it happened (forward, backward, optimizer, validation, host), the bytes ``wanted`` if known, one line
    of ``text``; of an error of an earlier attempt its ``micro``, if known."""

    where: str
    wanted: int | None
    text: str
    micro: int | None = None


class OutOfMemoryFailure(UserError):
    """The run ends because it is out of memory: no smaller micro-batch may be tried."""


def catch_oom(body: Callable[[], T], phases: Phases) -> T | OutOfMemory:
    """Return what ``body`` returns, or the out-of-memory error it raised. Other errors are raised.

    ``phases.current`` says where the error came from.
    """
    try:
        return body()
    except Exception as error:
        failure = recognize(error, _REPORTED_AS.get(phases.current, phases.current))
        if failure is None:
            raise
    # Outside the except block, whose traceback would pin the tensors that are to be freed.
    phases.enter(IDLE)
    return failure


def recognize(error: BaseException, where: str) -> OutOfMemory | None:
    """Return ``error`` as an ``OutOfMemory`` that holds no reference to it, or None where it is another error."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"  # torch's, on a card
    text = str(error).strip()
    if not named and not (isinstance(error, RuntimeError) and _MESSAGES.search(text)):
        return None
    found = _WANTED.search(text)
    wanted = round(float(found[1]) * _UNITS[_unit(found[2])]) if found else None
    return OutOfMemory(where, wanted, text.splitlines()[0] if text else type(error).__name__)


def requested(failure: OutOfMemory) -> str:
    """Return `` (2.00 GiB requested)``, or nothing where the size is not known."""
    if not failure.wanted:
        return ""
    gib = failure.wanted / (1 << 30)
    return f" ({gib:.2f} GiB requested)" if gib >= 1 else f" ({gib * 1024:.2f} MiB requested)"


def _unit(word: str) -> str:
    return next(unit for unit in _UNITS if unit.lower() == word.lower())
