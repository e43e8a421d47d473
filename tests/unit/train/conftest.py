"""A very small run and its data."""

from __future__ import annotations

from pathlib import Path

import pytest

from profiles.registry import load
from tests.unit.train.whole_runs import NANO, Nano, write_shards


@pytest.fixture
def nano(tmp_path: Path) -> Nano:
    """The spec of a run of ``whole_runs.NANO``, with whatever else is set."""
    write_shards(tmp_path / "shards")
    return lambda *more: load("cpu_demo", [*NANO, f"root={tmp_path / 'shards'}", *more])
