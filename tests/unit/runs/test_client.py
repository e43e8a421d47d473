"""A client's view of a run: the socket while a supervisor answers, the files otherwise; each record once."""

from __future__ import annotations

import asyncio
import os
import shutil
from typing import Any

import pytest
from msgspec.structs import replace

from engine.events import series as series_module
from engine.events import wire
from engine.events.commands import CommandReader
from engine.events.log import LogWriter
from engine.events.requests import FOR_TRAINER, PauseRequest, ResumeRequest, SetRequest
from engine.events.run_dir import EXIT_UNHANDLED
from engine.events.types import CutOff, Event, Exit, Link, Start, State, Step
from engine.host.process import process_identity
from engine.host.struct_json import write_struct
from engine.runs import client as client_module
from engine.runs.client import RunClient
from engine.runs.store import RunStore
from profiles.errors import UserError
from tests.unit.conftest import DEAD, Make
from tests.unit.runs.served import TIMEOUT, Served


@pytest.mark.parametrize("served", [True, False])
async def test_history_and_then_records_give_each_step_once_while_a_writer_appends(run: Served, served: bool) -> None:
    if not served:
        await run.server.close()
    last = 400

    async def write() -> None:
        run.write(Start(resumed_from=None))
        for step in range(1, last + 1):
            run.write(Step(step=step, loss=1.0))
            await asyncio.sleep(0)

    async def watch(after: int) -> list[int]:
        while run.index.history.dedup.last < after:
            await asyncio.sleep(0)
        client = RunClient(run.run_dir)
        answer = await client.history(["loss"], points=10_000)
        seen = [int(bucket.x) for bucket in answer.series["loss"]]
        assert len(seen) >= after
        events = client.events(answer.at)
        while seen[-1:] != [last]:  # the history may already have them all
            _, event = await anext(events)
            if isinstance(event, Step):
                seen.append(event.step)
        return seen

    watchers = [watch(after) for after in (0, 100, 300)]
    _, *seen = await asyncio.wait_for(asyncio.gather(write(), *watchers), TIMEOUT)
    assert seen == [list(range(1, last + 1))] * 3


async def test_records_continue_from_the_files_when_the_connection_is_lost(run: Served) -> None:
    run.write(Step(step=1, loss=1.0))
    seen: list[Any] = []

    async def watch() -> None:
        async for _, event in RunClient(run.run_dir).events():
            if isinstance(event, Link):
                seen.append("up" if event.up else "lost")
            elif isinstance(event, Step):
                seen.append(event.step)
            match seen[-1]:
                case 1:
                    await run.server.close()
                case "lost":
                    run.write(Step(step=2, loss=1.0))
                case 2:
                    await run.server.start()
                case "up" if len(seen) > 1:
                    run.write(Step(step=3, loss=1.0))
                case 3:
                    return

    await asyncio.wait_for(watch(), TIMEOUT)
    assert seen == ["up", 1, "lost", 2, "up", 3]


async def test_a_connection_closed_before_the_answer_does_not_count(run: Served) -> None:
    run.write(Step(step=1, loss=1.0))
    await run.server.close()

    async def disconnect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.close()

    server = await asyncio.start_unix_server(disconnect, sock=wire.listen(run.run_dir.socket_path))
    at, first = await asyncio.wait_for(anext(RunClient(run.run_dir).events()), TIMEOUT)
    assert at == 0 and isinstance(first, Step)
    server.close()


async def test_records_of_an_ended_run_end(make_run: Make) -> None:
    run_dir = make_run(phase="finished")
    log = LogWriter(run_dir.log_path, 1)
    for step in (1, 2, 3):
        log.write(Step(step=step, loss=1.0))
    log.write(State(phase="finished", reason=""))

    async def watch() -> list[tuple[int | None, Event]]:
        return [pair async for pair in RunClient(run_dir).events()]

    found = await asyncio.wait_for(watch(), TIMEOUT)
    assert [type(event) for _, event in found] == [Step, Step, Step, State]
    assert found[0][0] == 0
    client = RunClient(run_dir)
    assert [bucket.x for bucket in (await client.history(["loss"])).series["loss"]] == [1, 2, 3]
    with pytest.raises(UserError, match=rf"run {run_dir.id}: has finished; pause needs an active run"):
        await client.request(PauseRequest())
    with pytest.raises(UserError, match="has finished; it has no checkpoint to continue from; launch a new run"):
        await client.request(ResumeRequest())
    saved = make_run(phase="finished", checkpoint="models/run/ckpt_step_3", steps=3)
    with pytest.raises(
        UserError, match=rf"has finished; continue from .* mla-tui launch --resume {saved.id} -s steps=6$"
    ):
        await RunClient(saved).request(ResumeRequest())


async def test_a_request_is_pending_and_a_refusal_one_line(run: Served) -> None:
    client = RunClient(run.run_dir)
    id = await client.request(PauseRequest(), by="me")
    [command] = CommandReader(run.run_dir.commands_path, run.run_dir.log_path).poll()
    assert (command.id, command.by, command.request) == (id, "me", PauseRequest())


async def test_another_version_of_the_supervisor_is_reported(run: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await RunClient(run.run_dir).version_mismatch() is None
    monkeypatch.setattr("engine.runs.server.VERSION", "0.0.1")
    line = await RunClient(run.run_dir).version_mismatch()
    assert line is not None and run.run_dir.id in line and "0.0.1" in line and "\n" not in line


def test_the_version_of_a_supervisor_that_does_not_answer_is_in_the_state(
    make_run: Make, store: RunStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tui.cli.main import main

    run_dir = make_run(supervisor=process_identity(os.getpid()), version="0.0.1")
    monkeypatch.setenv("MLA_TUI_HOME", str(store.home))
    monkeypatch.setattr("sys.argv", ["mla-tui", "status", run_dir.id])
    main()
    assert "0.0.1" in capsys.readouterr().err


async def test_an_answer_cut_in_the_middle_falls_back_to_the_files(store: RunStore, make_run: Make) -> None:
    run_dir = make_run()
    LogWriter(run_dir.log_path, 1).write(Step(step=1, loss=1.0))

    async def die_while_answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b'{"jsonrpc":"2.0","id":1,"result":{"at":')
        writer.close()

    server = await asyncio.start_unix_server(die_while_answering, sock=wire.listen(run_dir.socket_path))
    answer = await RunClient(run_dir).history(["loss"])
    assert answer.series["loss"] == [(1, 1.0, 1.0, 1.0, 1)]
    server.close()


async def test_the_detail_of_a_step_range_has_single_steps(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series_module, "CAPACITY", 32)
    run = make_run()
    log = LogWriter(run.log_path, 1)
    for step in range(1, 1001):
        log.write(Step(step=step, loss=100.0 if step == 555 else float(step % 7), tok_s=1.0))
    log.write(Start(resumed_from=560))
    log = LogWriter(run.log_path, 2)
    for step in range(561, 1001):
        log.write(Step(step=step, loss=-1.0, tok_s=1.0))
    client = RunClient(run)
    whole = await client.history(["loss"])
    assert len(whole.series["loss"]) <= 32
    found = await client.detail(["loss", "t"], 4096, 550, 563)
    assert found is not None
    assert [p[0] for p in found["loss"]] == list(range(550, 564))
    assert [p[2] for p in found["loss"]][5:8] == [100.0, 3.0, 4.0]
    assert [p[2] for p in found["loss"]][-3:] == [-1.0] * 3
    assert len(found["t"]) == 14
    monkeypatch.setattr(client_module, "DETAIL_LIMIT", 1000)
    assert await client.detail(["loss"], 4096, 1, 1000) is None


async def test_a_live_reader_learns_that_the_run_was_cut_off_and_reads_on_when_it_is_resumed(make_run: Make) -> None:
    """Both processes were killed: no record says so, and whoever resumes it may be another user."""
    run_dir = make_run(trainer=process_identity(os.getpid()))
    run = Served(run_dir, LogWriter(run_dir.log_path, 1))
    await run.server.start()
    state = run_dir.state()
    seen: list[str] = []

    async def watch() -> None:
        async for _, event in RunClient(run.run_dir).events():
            reason = event.reason if isinstance(event, State | CutOff) else None
            seen.append(reason or type(event).__name__)
            match seen[-1]:
                case "Step" if len(seen) < 4:
                    write_struct(run_dir.state_path, replace(state, trainer=None))
                    await run.server.close()
                case "neither trainer nor supervisor is alive":
                    write_struct(run_dir.state_path, state)
                    run.write(State(phase="recovering", reason="resumed"))
                case "resumed":
                    return

    run.write(Step(step=1, loss=1.0))
    await asyncio.wait_for(watch(), TIMEOUT)
    assert seen == ["Link", "Step", "Link", "neither trainer nor supervisor is alive", "resumed"]


@pytest.mark.parametrize("kind", FOR_TRAINER, ids=lambda kind: kind.__name__)
async def test_no_request_restarts_a_run_that_was_cut_off(make_run: Make, kind: type[Any]) -> None:
    run_dir = make_run()
    with pytest.raises(
        UserError, match=rf"was cut off: neither .* alive; continue it with: mla-tui resume {run_dir.id}"
    ):
        await RunClient(run_dir).request(kind(changes={}) if kind is SetRequest else kind())
    assert not run_dir.supervisor_lock.exists()


@pytest.mark.parametrize("served", [True, False], ids=["subscribed", "no answer"])
async def test_a_reader_learns_within_3_s_that_the_trainer_is_dead_and_its_supervisor_does_nothing(
    run: Served, served: bool
) -> None:
    """The supervisor is stopped, or hangs."""
    if not served:
        await run.server.close()
    run.write(State(phase="running", reason=""))
    state, times, seen = run.run_dir.state(), {}, []

    async def watch() -> None:
        async for at, event in RunClient(run.run_dir).events(live=False):
            seen.append(event.reason or event.phase if isinstance(event, State) else "")
            times[seen[-1]] = asyncio.get_running_loop().time()
            match seen[-1]:
                case "running":
                    dead = replace(state, trainer=replace(DEAD, attempt=1))
                    write_struct(run.run_dir.state_path, dead)
                case "its trainer has exited; its supervisor has not handled that yet":
                    assert at is None
                    run.write(Exit(signal="SIGKILL", why="killed"))
                    run.write(State(phase="recovering", reason="killed"))
                case "killed":
                    return

    await asyncio.wait_for(watch(), TIMEOUT)
    assert seen[:2] == ["running", EXIT_UNHANDLED] and times[EXIT_UNHANDLED] - times["running"] < 3


async def test_a_live_reader_learns_that_the_run_was_removed(make_run: Make) -> None:
    run_dir = make_run()
    shutil.rmtree(run_dir.path)
    _, event = await asyncio.wait_for(anext(RunClient(run_dir).events()), TIMEOUT)
    assert isinstance(event, CutOff) and event.phase == "damaged" and event.reason == "was removed"


async def test_a_supervisor_of_another_version_is_no_reason_to_show_nothing(store: RunStore, make_run: Make) -> None:
    run_dir = make_run()
    LogWriter(run_dir.log_path, 1).write(Step(step=1, loss=1.0))

    async def answer_differently(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b'{"jsonrpc":"2.0","id":1,"result":{"at":5,"series":{"loss":[[1,1,1,1]]},"part":[0,null]}}\n')
        writer.close()

    server = await asyncio.start_unix_server(answer_differently, sock=wire.listen(run_dir.socket_path))
    assert (await RunClient(run_dir).history(["loss"])).series["loss"] == [(1, 1.0, 1.0, 1.0, 1)]
    server.close()
