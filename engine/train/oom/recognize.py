"""What an out-of-memory error is, whichever library raises it."""

from __future__ import annotations

import re
from dataclasses import dataclass

FORWARD, BACKWARD, OPTIMIZER, VALIDATION, HOST = "forward", "backward", "optimizer", "validation", "host"

_UNITS = {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_WANTED = re.compile(r"(?:allocate|need)\D{0,20}([\d.]+) (bytes|KiB|MiB|GiB)", re.IGNORECASE)
# Errors that are no class of their own: torch's allocator for a CPU, libraries that CUDA calls, MLX.
_SAYINGS = re.compile(
    r"DefaultCPUAllocator: (can't|not enough)|CUDA( error:)? out of memory|CU\w+_STATUS_ALLOC_FAILED"
    r"|CUDNN_STATUS_ALLOC_FAILED|Cuda failure \d* ?'out of memory'|\[(metal::)?malloc[^\]]*\]",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """``where`` it was (forward, backward, optimizer, validation), the bytes ``wanted`` if they were said, one line."""

    where: str
    wanted: int | None
    text: str


def recognized(error: BaseException, where: str) -> OutOfMemory | None:
    """The failure that ``error`` tells of, and nothing of it: its traceback pins tensors. None if it is another."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"  # torch's, on a card
    text = str(error).strip()
    if not named and not (isinstance(error, RuntimeError) and _SAYINGS.search(text)):
        return None
    found = _WANTED.search(text)
    wanted = round(float(found[1]) * _UNITS[_unit(found[2])]) if found else None
    return OutOfMemory(where, wanted, text.splitlines()[0] if text else type(error).__name__)


def _unit(word: str) -> str:
    return next(unit for unit in _UNITS if unit.lower() == word.lower())
