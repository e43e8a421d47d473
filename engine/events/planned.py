"""Defines what a restarted run is known to do. In its own file, because ``ls`` reads it and needs no other record."""

from typing import Any

from msgspec import Struct

from engine.events.numbers import Count


class Planned(Struct, frozen=True):
    """An edit that a restarted run will make again."""

    step: Count  # it holds from the step after this one
    values: dict[str, Any]  # key of the spec → new value
