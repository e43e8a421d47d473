"""Any number of readers of one run: each receives every record once, and all receive the same."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest

from engine.events.log import read_all
from engine.events.run_dir import RunDir
from engine.events.types import Step
from engine.runs.client import RunClient
from tests.e2e.conftest import Run, Workspace, output
from tests.events import as_json


def as_logged(run: Run) -> list[dict[str, Any]]:
    return [{"at": at, **as_json(event)} for at, event in read_all(run.run_dir.log_path)]


class Reader(threading.Thread):
    """A thread that reads through a ``RunClient``, live records too."""

    def __init__(self, run_dir: RunDir) -> None:
        super().__init__(daemon=True)
        self.client = RunClient(run_dir)
        self.live: list[str] = []
        self.logged: list[dict[str, Any]] = []

    def run(self) -> None:
        asyncio.run(self._read())

    async def _read(self) -> None:
        async for at, event in self.client.events():
            record = as_json(event)
            if at is None:
                self.live.append(record["kind"])
            else:
                self.logged.append({"at": at, **record})


@pytest.mark.parametrize(
    "disturbed", [pytest.param(False, marks=pytest.mark.faults), True], ids=["calm", "supervisor killed"]
)
def test_all_readers_see_the_same(workspace: Workspace, disturbed: bool) -> None:
    run = workspace.launch("-s", "steps=500")
    reader = Reader(run.run_dir)
    reader.start()
    first = workspace.start("watch", run.id, "--json")
    run.wait_step(100)
    second = workspace.start("watch", run.id, "--json")  # started late, it still reads from the beginning
    if disturbed:
        run.wait_step(200)
        run.kill("supervisor")
    outputs = [process.communicate(timeout=90)[0] for process in (first, second)]
    reader.join(60)
    run.wait_end()

    logged = as_logged(run)
    seen = [[json.loads(line) for line in output.splitlines()] for output in outputs]
    assert seen[0] == logged
    assert seen[1] == logged
    assert reader.logged == logged
    assert [first.returncode, second.returncode] == [0, 0]
    assert {"link", "telemetry"} <= set(reader.live)
    assert [record["step"] for record in logged if record["kind"] == "step"] == list(range(1, 501))


def test_watching_starts_at_an_offset(reference: Run) -> None:
    logged = as_logged(reference)
    start = logged[100]["at"]
    done = reference.workspace.run("watch", reference.id, "--json", "--from", start).stdout
    assert [json.loads(line) for line in done.splitlines()] == logged[100:]


@pytest.mark.faults  # tests/unit/runs/test_client.py has it with a writer of its own
def test_records_continue_exactly_where_history_ends(workspace: Workspace) -> None:
    run = workspace.launch()
    run.wait_step(60)

    async def read() -> tuple[list[int], list[int]]:
        client = RunClient(run.run_dir)
        answer = await client.history(["loss"], 10_000)
        before = [int(bucket.x) for bucket in answer.series["loss"]]
        after = [event.step async for _, event in client.events(answer.at, live=False) if isinstance(event, Step)]
        return before, after

    before, after = asyncio.run(read())
    assert before and after
    assert before + after == list(range(1, 241))


def test_watch_prints_sentences(reference: Run) -> None:
    done = reference.workspace.run("watch", reference.id)
    lines = done.stdout.splitlines()
    assert lines[-1].startswith("finished at step 240, loss ")
    assert any(line.startswith("step 240/240  loss ") for line in lines)
    assert any(line.startswith("validation at step 200") for line in lines)


def test_a_closed_output_pipe_is_no_error(reference: Run) -> None:
    watch = reference.workspace.start("watch", reference.id, "--json")
    assert output(watch).readline()
    output(watch).close()  # as `| head -1` does
    watch.wait(60)
    assert watch.stderr and "Traceback" not in watch.stderr.read()
