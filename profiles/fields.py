"""Declares the fields of a spec's tables: a default, and in the metadata the values that are allowed."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def number(default: float, low: float, high: float, unit: str = "") -> Any:
    """Declare a number of ``unit`` from ``low`` to ``high``."""
    return field(default=default, metadata={"range": (low, high), "unit": unit})


def choice(default: str, *others: str) -> Any:
    """Declare one of several words."""
    return field(default=default, metadata={"choices": (default, *others)})
