"""A run that needs attention continues by itself once what it waits for has changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from engine.events import commands
from engine.events.requests import ResumeRequest
from engine.events.types import Event, State
from engine.runs import attention
from engine.runs.attention import Attention
from profiles import registry

if TYPE_CHECKING:
    from tests.unit.conftest import Make

WHY = "the data has changed: train/a.bin is new"
SAVED = "/models/gone/ckpt_step_20"
LOST = "/models/gone: the checkpoints of this run are missing"
GONE = "train/a.bin: does not exist"
LACKS = "not every rank has what the run goes on from: /models/x/ckpt_step_4: on the host of rank 1 it is missing"
AS_IT_WAS = "the run continues when it is as it was"
AGAIN = "mla-tui launch --resume"


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
    run = make_run()
    as_it_is = f"continue with the data as it is: mla-tui resume {run.id} --data-changed"
    way_out = f"restore the data and the run continues, or {as_it_is}"
    assert await answers(run, root, *changes) == [f"needs-attention: {WHY}; {way_out}"]


async def test_it_continues_when_the_user_accepts_the_data_as_it_is(make_run: Make, root: Path) -> None:
    run = make_run()

    def accept() -> None:
        commands.append(run.commands_path, ResumeRequest(data_changed=True), "test", "one")

    (logged,) = await answers(run, root, accept)
    assert logged.startswith(f"needs-attention: {WHY}; ")


@pytest.mark.parametrize(
    ("refused", "saved", "waits", "ended"),
    [
        (
            None,
            SAVED,
            f"{LOST}; put it back and the run continues",
            f"{LOST}; continue once it is back with: {AGAIN} ID",
        ),
        (GONE, SAVED, f"{GONE}; {AS_IT_WAS}", f"{GONE}; continue once it is as it was with: {AGAIN} ID"),
        (GONE, None, f"{GONE}; {AS_IT_WAS}", f"{GONE}; launch it again once it is as it was"),
        (
            LACKS,
            SAVED,
            f"{LACKS}; then go on with: mla-tui resume ID",
            f"{LACKS}; continue once every host has it with: {AGAIN} ID",
        ),
        (
            WHY,
            SAVED,
            "",
            f"{WHY}; continue once the data is restored, or as it is with --data-changed, with: {AGAIN} ID",
        ),
    ],
)
async def test_a_stopped_run_is_not_said_to_continue_by_itself(
    make_run: Make,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    refused: str | None,
    saved: str | None,
    waits: str,
    ended: str,
) -> None:
    run = make_run()
    waiting = Attention(run, registry.load("cpu_demo", [f"data.root={root}"]))
    if refused:
        waiting.refuse_data(refused)
        monkeypatch.setattr(attention, "missing_source", lambda *_: None)
    logged: list[str] = []

    async def stopped(seconds: float, reason: str) -> bool:
        logged.append(reason)
        return True

    def log(event: Event) -> None:
        assert isinstance(event, State)
        assert not waits or event.reason == waits.replace("ID", run.id)

    assert not await waiting.wait(lambda: saved, log, stopped)
    assert logged == [ended.replace("ID", run.id)]
