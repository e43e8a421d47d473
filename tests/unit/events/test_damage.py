"""Damaged files of a run, with torn ends and flipped bits: every reader uses the intact part and reports the damage.

A reader may return less, but it never raises and never returns a record that was not written, unless the damaged line
still is a valid record.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from engine.events import commands
from engine.events.commands import CommandReader
from engine.events.log import LogWriter, read_all, scan
from engine.events.log_index import LogIndex
from engine.events.metrics import SERIES
from engine.events.requests import PauseRequest, ResumeRequest, SetRequest
from engine.events.run_dir import RunDir
from engine.events.types import (
    Alert,
    Checkpoint,
    Edit,
    Event,
    Exit,
    Log,
    Memory,
    Oom,
    Start,
    State,
    Step,
    Telemetry,
    Val,
)
from engine.host.process import ProcessIdentity
from engine.host.struct_json import encode
from engine.runs.client import RunClient
from tests.events import of_kind
from tui.app.state.run_view import RunView
from tui.cli.line_printer import LinePrinter
from tui.text.event_text import describe

if TYPE_CHECKING:
    from tests.unit.conftest import Make

FLIPS = 300


@pytest.fixture
def run(make_run: Make) -> RunDir:
    """A run with every kind of record, a restart, and commands."""
    run = make_run(phase="finished", supervisor=ProcessIdentity(1, 1 << 40), trainer=None, at=0)
    log = LogWriter(run.log_path, 1)
    log.write(State(phase="starting", reason=""))
    log.write(Start(plan={"loss": "fused"}, params=10, device="cpu", versions={}, resumed_from=None))
    log.write(Val(step=0, loss=3.0, bucket="val", tokens=64))
    for step in range(1, 9):
        log.write(Step(step=step, loss=3 / step, lr=1e-3, tok_s=10.5, step_s=0.5, micro=4, accum=2, context=32))
    log.write(Telemetry(rss=[1, 2], ram_used=[3, 4]))
    log.write(Edit(id="a" * 12, ok=True, changed={"micro": (4, 2)}, step=4, by="me", why=""))
    log.write(Checkpoint(ok=True, path="/x/ckpt_step_4", step=4, bytes=12, seconds=0.5, stall_s=0.1, why=""))
    log.write(Alert(what="nan", text="step 5"))
    log.write(Oom(where="backward", wanted=1 << 30, parts={"weights": 1}, action="micro 2", micro=2, accum=4))
    log.write(Memory(parts={"weights": 12}))
    log.write(Log(level="warning", text="said", rank=1))
    log.write(Exit(code=None, signal="SIGKILL", why="killed"))
    log = LogWriter(run.log_path, 2)
    log.write(Start(resumed_from=4))
    log.write(Step(step=5, loss=0.5, lr=1e-3, tok_s=10.5, step_s=0.5))
    log.write(State(phase="finished", reason=""))
    for request in (SetRequest(changes={"micro": 2}), PauseRequest(), ResumeRequest()):
        commands.append(run.commands_path, request, "me")
    return run


def read_everything(run: RunDir) -> LogIndex:
    """Read a run's files as supervisor, trainer, command line and app do."""
    log_index = LogIndex(run)
    log_index.catch_up()
    msgspec.json.encode(log_index.history.query(list(SERIES), 100))
    summary = run.summary()
    encode(summary)
    view, show = RunView(summary), LinePrinter(8)
    view.load_history(log_index.history.answer(log_index.offset, list(SERIES), 100, None, None, marks=True))
    for at, event in read_all(run.log_path):
        view.apply(at, event)
        describe(event)
        show(event)
    view.eta()
    list(scan(run.log_path, b'"edit"'))
    CommandReader(run.commands_path, run.log_path).poll()
    log_index.close()
    return log_index


def flip_bit(content: bytes, rng: random.Random) -> bytes:
    bit = rng.randrange(8 * len(content))
    return content[: bit // 8] + bytes([content[bit // 8] ^ 1 << bit % 8]) + content[bit // 8 + 1 :]


@pytest.mark.parametrize("name", ["events.jsonl", "commands.jsonl", "state.json", "history.bin"])
def test_every_reader_survives_flipped_bits(run: RunDir, name: str) -> None:
    read_everything(run).save()
    path, seed = run.path / name, random.SystemRandom().randrange(1 << 32)
    whole, rng = path.read_bytes(), random.Random(seed)
    print(f"seed {seed}")
    for _ in range(FLIPS):
        path.write_bytes(flip_bit(whole, rng))
        if name == "events.jsonl":
            (run.path / "history.bin").unlink(missing_ok=True)
        read_everything(run)


def test_a_flipped_bit_loses_at_most_the_lines_it_is_in(run: RunDir) -> None:
    whole, seed = run.log_path.read_bytes(), random.SystemRandom().randrange(1 << 32)
    rng, truth = random.Random(seed), list(read_all(run.log_path))
    print(f"seed {seed}")
    for _ in range(FLIPS):
        damaged = flip_bit(whole, rng)
        at = next(i for i in range(len(whole)) if damaged[i] != whole[i])
        begin, end = whole.rfind(b"\n", 0, at) + 1, whole.find(b"\n", at) + 1
        end = (whole.find(b"\n", end) + 1 or len(whole)) if whole[at : at + 1] == b"\n" else end  # it joins two
        run.log_path.write_bytes(damaged)
        found = [pair for pair in read_all(run.log_path) if not begin <= pair[0] < end]
        assert found == [pair for pair in truth if not begin <= pair[0] < end]


@pytest.mark.parametrize("name", ["events.jsonl", "commands.jsonl"])
def test_a_file_torn_near_any_record_boundary_gives_the_whole_records(run: RunDir, name: str) -> None:
    path = run.path / name
    whole, truth = path.read_bytes(), list(read_all(path))
    ends = [i + 1 for i in range(len(whole)) if whole[i : i + 1] == b"\n"]
    for cut in sorted({max(0, end + d) for end in ends for d in (-2, -1, 0, 1, 9)}):
        path.write_bytes(whole[:cut])
        assert list(read_all(path)) == [p for p in truth if whole.find(b"\n", p[0]) < cut]
        read_everything(run)
        path.write_bytes(whole[:cut] + b"\x00" * 40)  # what a power loss leaves of a page
        read_everything(run)


@pytest.mark.parametrize(
    "state",
    [
        b"",
        b"[]",
        b"{",
        b'{"phase":7,"attempt":"x","supervisor":[],"trainer":{"pid":"1"},"at":-1,"step":{},"exit":7}',
        b'{"phase":"running","at":99999999999,"attempt":1' + b"0" * 400 + b',"started":"now"}',
    ],
)
def test_an_invalid_state_is_rebuilt_from_the_log(run: RunDir, state: bytes) -> None:
    run.state_path.write_bytes(state)
    found = read_everything(run)
    assert (found.state.phase, found.state.step, found.state.attempt) == ("finished", 5, 2)


def test_a_client_reads_a_damaged_run_without_a_supervisor(run: RunDir, tmp_path: Path) -> None:
    whole = run.log_path.read_bytes()
    run.log_path.write_bytes(whole[:900] + b"\xff" * 50 + whole[950:])

    async def watch() -> list[tuple[int | None, Event]]:
        client = RunClient(run)
        await client.history(["loss"])
        return [pair async for pair in client.events()]

    found = asyncio.run(watch())
    assert isinstance(found[-1][1], State) and len(of_kind(Step, found)) >= 6
