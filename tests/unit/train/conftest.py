"""Provides the spec of a very small run, and its data."""

from __future__ import annotations

from pathlib import Path

import pytest

from profiles.registry import load
from tests.unit.train.tiny_runs import NANO, MakeSpec, write_shards


@pytest.fixture
def nano(tmp_path: Path) -> MakeSpec:
    """Return a function from more settings to the spec of a run with ``tiny_runs.NANO`` and those."""
    write_shards(tmp_path / "shards")
    return lambda *more: load("cpu_demo", [*NANO, f"root={tmp_path / 'shards'}", *more])
