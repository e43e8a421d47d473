"""Defines the result of a check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of the check named ``check``: a ``message`` and, unless all is well, a ``fix``."""

    level: Level
    check: str
    message: str
    fix: str = ""
