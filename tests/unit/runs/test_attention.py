"""A run that needs attention continues by itself once what it waits for has changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from engine.events import commands
from engine.events.requests import ResumeRequest
from engine.events.types import Event, State
from engine.runs.attention import Attention
from profiles import registry

if TYPE_CHECKING:
    from tests.unit.conftest import Make

WHY = "the data has changed: train/a.bin is new"


async def answers(run: Any, root: Path, *changes: Any) -> list[str]:
    """Refuse the data in ``root``, make one change a second, and return the reasons logged until the run goes on."""
    spec = registry.load("cpu_demo", [f"data.root={root}"])
    waiting, logged, left = Attention(run, spec), [], list(changes)
    waiting.refuse_data(WHY)

    async def stopped(seconds: float, reason: str) -> bool:
        assert left, "the run went on waiting"
        left.pop(0)()
        return False

    def log(event: Event) -> None:
        assert isinstance(event, State)
        logged.append(f"{event.phase}: {event.reason}")

    assert await waiting.wait(lambda: None, log, stopped)
    assert not left
    return logged


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "shards" / "phase1" / "train").mkdir(parents=True)
    (tmp_path / "shards" / "phase1" / "train" / "a.bin").write_bytes(b"ab")
    return tmp_path / "shards"


async def test_it_continues_when_the_data_is_restored(make_run: Make, root: Path) -> None:
    changes = (lambda: None, (root / "phase1" / "train" / "a.bin").unlink)
    assert await answers(make_run(), root, *changes) == [f"needs-attention: {WHY}"]


async def test_it_continues_when_the_user_accepts_the_data_as_it_is(make_run: Make, root: Path) -> None:
    run = make_run()

    def accept() -> None:
        commands.append(run.commands_path, ResumeRequest(data_changed=True), "test", "one")

    assert await answers(run, root, accept) == [f"needs-attention: {WHY}"]
