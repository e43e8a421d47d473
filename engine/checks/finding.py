"""What a check has found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "bad"]


@dataclass(frozen=True, slots=True)
class Finding:
    """``what`` was looked at, what was ``found``, and the ``way`` out where it is not well."""

    level: Level
    what: str
    found: str
    way: str = ""
