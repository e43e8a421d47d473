"""The log socket: requests, malformed requests, and streams that each client reads at its own pace.

Server and log are real; a ``LogWriter`` stands for the trainer.
"""

from __future__ import annotations

import asyncio
import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from engine.events import wire
from engine.events.commands import CommandReader
from engine.events.log import LogWriter
from engine.events.requests import SetRequest
from engine.events.run_dir import RunDir
from engine.events.types import Exit, Log, Progress, Step
from tests.unit.runs.served import TIMEOUT, Served

if TYPE_CHECKING:
    from tests.unit.conftest import Make


class Client:
    """A raw connection that speaks the protocol."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, run: Served) -> Client:
        sock = wire.connect(run.run_dir.socket_path)
        sock.setblocking(False)
        return cls(*await asyncio.open_unix_connection(sock=sock, limit=wire.ANSWER_LIMIT))

    async def line(self) -> dict[str, Any]:
        line = await asyncio.wait_for(self.reader.readline(), TIMEOUT)
        assert line.endswith(b"\n"), "the server closed the connection"
        return dict(json.loads(line))

    async def send(self, line: bytes) -> dict[str, Any]:
        self.writer.write(line + b"\n")
        return await self.line()

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        return await self.send(json.dumps({"id": 7, "method": method, "params": params}).encode())

    async def events(self, count: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while len(found) < count:
            message = await self.line()
            if message.get("method") == "event":
                found.append(message["params"])
        return found


MALFORMED = [
    (b"not json", wire.PARSE_ERROR),
    (b"", wire.PARSE_ERROR),
    (b"\xff\xfe", wire.PARSE_ERROR),
    (b"[" * 60_000, wire.INVALID_REQUEST),
    (b'[{"id":1,"method":"hello"}]', wire.INVALID_REQUEST),
    (b'"hello"', wire.INVALID_REQUEST),
    (b"{}", wire.INVALID_REQUEST),
    (b'{"id":1,"method":7}', wire.INVALID_REQUEST),
    (b'{"id":NaN,"method":"hello"}', wire.PARSE_ERROR),
    (b'{"id":1e999,"method":"hello"}', wire.INVALID_REQUEST),
    (b'{"id":[1],"method":"hello"}', wire.INVALID_REQUEST),
    (b'{"id":1,"method":"hello","params":[1]}', wire.INVALID_PARAMS),
    (b'{"id":1,"method":"dance"}', wire.METHOD_NOT_FOUND),
    (b'{"id":1,"method":"history"}', wire.INVALID_PARAMS),
    (b'{"id":1,"method":"history","params":{"series":"loss"}}', wire.INVALID_PARAMS),
    (b'{"id":1,"method":"history","params":{"series":[[1]]}}', wire.INVALID_PARAMS),
    (b'{"id":1,"method":"history","params":{"series":["loss"],"points":-1}}', wire.INVALID_PARAMS),
    (b'{"id":1,"method":"history","params":{"series":["loss"],"since":"x"}}', wire.INVALID_PARAMS),
    (b'{"id":1,"method":"subscribe","params":{"from":"x"}}', wire.INVALID_PARAMS),
    (b'{"id":1,"method":"subscribe","params":{"from":-1}}', wire.INVALID_PARAMS),
    (b'{"id":1,"method":"subscribe","params":{"from":NaN}}', wire.PARSE_ERROR),
    (b'{"id":1,"method":"hello","params":{"x":"' + b"y" * wire.REQUEST_LIMIT + b'"}}', wire.INVALID_REQUEST),
    (b"z" * 5 * wire.REQUEST_LIMIT, wire.INVALID_REQUEST),
]


async def test_malformed_requests_are_answered_and_the_connection_survives(run: Served) -> None:
    client = await Client.to(run)
    for line, code in MALFORMED:
        answer = await client.send(line)
        assert answer["error"]["code"] == code, line[:80]
        assert answer["error"]["message"] and "\n" not in answer["error"]["message"]
        assert (await client.call("hello"))["result"]["run"] == run.run_dir.id, line[:80]


@pytest.mark.parametrize(
    ("method", "params", "message"),
    [
        ("history", {"series": ["loss"], "points": -1}, "history: points: -1: expected int >= 0"),
        ("history", {"series": ["loss", 7]}, "history: series[1]: ['loss', 7]: expected str, got int"),
        ("history", {"series": ["loss"], "marks": "y"}, "history: marks: 'y': expected bool, got str"),
        ("subscribe", {"from": "x"}, "subscribe: from: 'x': expected int, got str"),
        ("set", {}, "set: params: object missing required field changes"),
        ("set", {"changes": "micro=4"}, "set: changes: 'micro=4': expected object, got str"),
        ("stop", {"id": "7"}, "stop: id: '7': expected str matching regex '^[0-9a-f]{12}$'"),
        ("pause", [1], "pause: params: expected object, got array"),
    ],
)
async def test_a_refusal_names_the_field_and_its_value(
    run: Served, method: str, params: dict[str, Any], message: str
) -> None:
    client = await Client.to(run)
    line = json.dumps({"id": 7, "method": method, "params": params}).encode()
    error = {"code": wire.INVALID_PARAMS, "message": message}
    assert await client.send(line) == {"jsonrpc": "2.0", "id": 7, "error": error}


async def test_a_client_that_disconnects_in_the_middle_affects_no_other(run: Served) -> None:
    other = await Client.to(run)
    for half in (b"", b'{"id":1', b"x" * 3 * wire.REQUEST_LIMIT, b'{"id":1,"method":"subscribe"}\n'):
        leaving = await Client.to(run)
        leaving.writer.write(half)
        await leaving.writer.drain()
        leaving.writer.close()
    run.write(Log(text="after"))
    assert (await other.call("hello"))["id"] == 7
    await other.call("subscribe")
    assert [e["text"] for e in await other.events(1)] == ["after"]


async def test_only_its_owner_may_use_the_socket(run: Served) -> None:
    assert stat.S_IMODE(run.run_dir.socket_path.stat().st_mode) == 0o600


async def test_hello_and_status_identify_the_run(run: Served) -> None:
    run.write(Step(step=3, loss=2.0))
    client = await Client.to(run)
    hello = (await client.call("hello"))["result"]
    assert (hello["run"], hello["pid"], hello["at"]) == (run.run_dir.id, os.getpid(), run.index.offset)
    status = (await client.call("status"))["result"]
    assert (status["id"], status["supervisor"]["alive"]) == (run.run_dir.id, True)


async def test_subscribing_from_the_start_and_from_any_record(run: Served) -> None:
    for step in range(1, 6):
        run.write(Step(step=step, loss=1.0))
    client = await Client.to(run)
    assert (await client.call("subscribe"))["result"] == {"from": 0}
    events = await client.events(5)
    assert [e["step"] for e in events] == [1, 2, 3, 4, 5]
    late = await Client.to(run)
    await late.call("subscribe", **{"from": events[2]["at"]})
    assert await late.events(3) == events[2:]
    beyond = await Client.to(run)
    await beyond.call("subscribe", **{"from": events[2]["at"] + 1})
    assert await beyond.events(2) == events[3:]
    run.write(Step(step=6, loss=1.0))
    assert [e["step"] for c in (client, late, beyond) for e in await c.events(1)] == [6, 6, 6]


async def test_a_client_that_does_not_read_delays_no_other(run: Served) -> None:
    slow, fast = await Client.to(run), await Client.to(run)
    for client in (slow, fast):
        await client.call("subscribe")
    slow.reader._limit = 1  # type: ignore[attr-defined]  # its own buffer must not take in the stream
    count, text = 200, "x" * 20_000  # 4 MB: more than kernel and server buffer for one client

    async def write() -> None:
        for number in range(count):
            run.write(Log(rank=number, text=text))
            await asyncio.sleep(0)

    _, events = await asyncio.gather(write(), fast.events(count))
    assert [e["rank"] for e in events] == list(range(count))
    assert (await fast.call("hello"))["id"] == 7
    slow.reader._limit = wire.ANSWER_LIMIT  # type: ignore[attr-defined]
    assert [e["rank"] for e in await slow.events(count)] == list(range(count))  # and it has lost nothing


async def test_only_progress_may_be_sent_without_being_logged(run: Served) -> None:
    watcher, trainer = await Client.to(run), await Client.to(run)
    await watcher.call("subscribe")
    for event in (Exit(1.0, code=0), Progress(1.0, micro_done=3, tok_s=float("inf"))):
        trainer.writer.write(wire.encode_event(event))
    assert await watcher.events(1) == [{"kind": "progress", "t": 1.0, "micro_done": 3}]
    assert run.run_dir.log_path.read_bytes() == b""
    late = await Client.to(run)  # earlier live records are not sent to later clients
    await late.call("subscribe")
    run.write(Log(text="next"))
    assert [e["kind"] for e in await late.events(1)] == ["log"]


async def test_a_command_is_stored_and_pending(run: Served) -> None:
    client = await Client.to(run)
    answer = (await client.call("set", changes={"micro": 4}, by="me"))["result"]
    assert answer["state"] == "pending"
    [command] = CommandReader(run.run_dir.commands_path, run.run_dir.log_path).poll()
    assert (command.id, command.by) == (answer["id"], "me")
    assert command.request == SetRequest(changes={"micro": 4})
    stop = (await client.call("stop", save=False))["result"]
    assert run.stopped_by == [stop["id"]]


async def test_a_command_that_cannot_be_written_is_refused(run: Served) -> None:
    run.run_dir.commands_path.mkdir()
    client = await Client.to(run)
    message = f"pause: {run.run_dir.commands_path}: Is a directory"
    assert (await client.call("pause"))["error"] == {"code": wire.REFUSED, "message": message}
    assert "result" in await client.call("hello")


async def test_history_respects_points_and_range(run: Served) -> None:
    for step in range(1, 101):
        run.write(Step(step=step, loss=float(step)))
    client = await Client.to(run)
    answer = (await client.call("history", series=["loss", "none"], points=10))["result"]
    assert answer["at"] == run.index.offset
    assert [len(points) for points in answer["series"].values()] == [10]
    window = (await client.call("history", series=["loss"], since=5, until=6))["result"]
    assert window["series"]["loss"] == [[5, 5, 5, 5, 1], [6, 6, 6, 6, 1]]


async def test_a_path_longer_than_a_socket_address_works(tmp_path: Path, make_run: Make) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    run_dir = make_run()
    os.rename(run_dir.path, folder / run_dir.id)
    run_dir = RunDir(folder / run_dir.id)
    assert len(os.fsencode(run_dir.socket_path)) > 107
    served = Served(run_dir, LogWriter(run_dir.log_path, 1))
    await served.server.start()
    client = await Client.to(served)
    assert (await client.call("hello"))["result"]["run"] == run_dir.id
    await served.server.close()


async def test_the_socket_of_a_dead_supervisor_is_replaced(run: Served, make_run: Make) -> None:
    run_dir = make_run()
    wire.listen(run_dir.socket_path).close()
    with pytest.raises(OSError):
        wire.connect(run_dir.socket_path)
    served = Served(run_dir, LogWriter(run_dir.log_path, 1))
    await served.server.start()
    assert "result" in await (await Client.to(served)).call("hello")
    await served.server.close()
    assert not run_dir.socket_path.exists()
