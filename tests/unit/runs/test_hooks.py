"""Hooks: which records are events, what a command receives, and that no hook can block or end the supervisor."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from msgspec.structs import replace

from engine.events.log import LogWriter, read_all
from engine.events.run_dir import RunDir
from engine.events.status import RunStatus
from engine.events.types import Alert, Event, Log, Oom, State, Step
from engine.runs import hooks
from engine.runs.hook_events import EVENTS
from engine.runs.hooks import Hooks
from profiles.errors import SpecError
from tests.events import as_json, of_kind

if TYPE_CHECKING:
    from tests.unit.conftest import Make

Configure = Callable[..., Path]


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configure:
    """``configure(finished="…")`` writes a ``hooks.toml``."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def write(text: str | None = None, **commands: str) -> Path:
        path = hooks.hooks_path()
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [f"{event} = {json.dumps(command)}" for event, command in commands.items()]
        path.write_text("\n".join(["[on_event]", *lines]) if text is None else text)
        return path

    return write


class HookedRun:
    """A run's log, and hooks that receive each record as they do in a supervisor."""

    def __init__(self, run_dir: RunDir, state: RunStatus | None = None) -> None:
        self.run_dir = run_dir
        self.log = LogWriter(run_dir.log_path, 1)
        self.state = RunStatus(phase="running", hooks_at=0) if state is None else state
        self.saved: list[int] = []
        self.hooks = Hooks(run_dir, self.state, self.log.write, lambda: self.saved.append(self.state.hooks_at or 0))
        self.at = run_dir.log_path.stat().st_size

    def write(self, event: Event) -> None:
        self.log.write(event)
        for at, logged in read_all(self.run_dir.log_path, self.at):
            self.hooks.enqueue(at, logged)
        self.at = self.run_dir.log_path.stat().st_size

    def warnings(self) -> list[str]:
        return [str(line.text) for line in of_kind(Log, read_all(self.run_dir.log_path))]


@pytest.fixture
def run(make_run: Make, configure: Configure) -> HookedRun:
    return HookedRun(make_run("demo"))


def received(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


async def test_each_event_runs_its_command(run: HookedRun, configure: Configure, tmp_path: Path) -> None:
    out = tmp_path / "received"
    configure(**dict.fromkeys(EVENTS, f"cat >> {out}"))
    run.write(State(phase="running", reason=""))
    run.write(Oom(where="backward", wanted=5))
    run.write(Step(step=3, loss=None))
    run.write(Alert(what="nan", text="not a number"))
    run.write(Alert(what="stall", text="slow"))
    run.write(Alert(what="oom", text="of another kind"))
    run.write(State(phase="needs-attention", reason="the data has changed"))
    run.write(State(phase="failed", reason="no more"))
    run.write(State(phase="finished", reason=""))
    await run.hooks.finish()
    records = received(out)
    assert [record["event"] for record in records] == ["oom", "nan", "stall", "needs-attention", "failed", "finished"]
    log = dict(read_all(run.run_dir.log_path))
    for record in records:
        run_of = {key: record.pop(key) for key in ("run", "name", "host", "event")}
        assert run_of["run"] == run.run_dir.id
        assert run_of["name"] == "demo"
        assert run_of["host"] == os.uname().nodename
        assert record == {**as_json(log[record["at"]]), "at": record["at"]}
    assert run.warnings() == []


async def test_the_environment_names_the_run_and_there_is_no_terminal(
    run: HookedRun, configure: Configure, tmp_path: Path
) -> None:
    out = tmp_path / "received"
    configure(
        finished=f'echo "$MLA_TUI_EVENT $MLA_TUI_RUN $MLA_TUI_NAME" > {out}; ps -o sid= -p $$ >> {out};'
        f" echo $$ >> {out}; echo hello; echo there >&2"
    )
    run.write(State(phase="finished", reason=""))
    await run.hooks.finish()
    names, session, pid = out.read_text().splitlines()
    assert names == f"finished {run.run_dir.id} demo"
    assert session.strip() == pid.strip() != str(os.getsid(0))
    assert run.run_dir.console_path.read_text() == "hello\nthere\n"


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("exit 3", "exited with code 3"),
        ("kill -9 $$", "was killed (signal 9)"),
        ("no-such-program-at-all", "exited with code 127"),
    ],
)
async def test_a_hook_that_fails_is_a_warning(run: HookedRun, configure: Configure, command: str, why: str) -> None:
    configure(finished=command)
    run.write(State(phase="finished", reason=""))
    await run.hooks.finish()
    assert run.warnings() == [f"hook finished: {why}; its output is in {run.run_dir.console_path}"]


async def test_a_hook_that_does_not_read_its_input_is_fine(run: HookedRun, configure: Configure) -> None:
    configure(finished="exec <&-; exit 0")
    run.write(State(phase="finished", reason="x" * 200_000))
    await run.hooks.finish()
    assert run.warnings() == []


async def test_a_hook_that_takes_too_long_is_killed_with_all_its_processes(
    run: HookedRun, configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks.run_hook, "__defaults__", (0.5,))
    pids = tmp_path / "pids"
    configure(nan=f"sleep 600 & echo $! > {pids}; echo $$ >> {pids}; wait", finished=f"echo done >> {pids}")
    run.write(Alert(what="nan", text=""))
    run.write(State(phase="finished", reason=""))
    await run.hooks.finish()
    assert run.warnings() == [
        f"hook nan: was killed: it took more than 0.5 s; its output is in {run.run_dir.console_path}"
    ]
    *started, last = pids.read_text().split()
    assert last == "done"
    for pid in map(int, started):
        deadline = time.monotonic() + 20
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline


async def test_the_supervisor_does_not_wait_for_a_hook(run: HookedRun, configure: Configure, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    configure(nan=f"while [ ! -e {gate} ]; do sleep 0.05; done")
    for _ in range(100):  # many events behind a hook that hangs
        run.write(Alert(what="nan", text=""))
    run.write(State(phase="finished", reason=""))
    assert len(run.hooks._pending) == hooks.MAX_PENDING + 1
    assert run.warnings() == [f"hook nan: is skipped: {hooks.MAX_PENDING} hooks are pending"]
    configure(finished=f"cat > {tmp_path / 'received'}")  # fixed while it is pending
    gate.touch()
    await run.hooks.finish()
    assert [record["phase"] for record in received(tmp_path / "received")] == ["finished"]


async def test_a_broken_file_is_a_warning_and_works_once_fixed(
    run: HookedRun, configure: Configure, tmp_path: Path
) -> None:
    path = configure("[on_event")
    run.write(Alert(what="nan", text=""))
    await run.hooks.finish()
    (warning,) = run.warnings()
    assert warning.startswith(f"hook nan: {path}: not valid TOML")
    configure(nan=f"cat > {tmp_path / 'received'}")
    run.write(Alert(what="nan", text="again"))
    await run.hooks.finish()
    assert received(tmp_path / "received")[0]["text"] == "again"


async def test_the_next_supervisor_runs_pending_hooks_and_no_earlier_ones(
    run: HookedRun, configure: Configure, tmp_path: Path
) -> None:
    out = tmp_path / "received"
    configure(nan=f"cat >> {out}", stall="exit 0")
    run.write(Alert(what="nan", text="first"))
    run.write(Step(step=1))
    await run.hooks.finish()
    kept = replace(run.state)
    assert run.saved == [1] or run.saved[-1] <= (kept.hooks_at or 0)
    # Its supervisor is killed here, before it reads what follows.
    run.log.write(Step(step=2))
    run.log.write(Alert(what="nan", text="second"))
    assert hooks.has_pending(run.run_dir) is False  # the state on disk has no hooks_at
    again = HookedRun(run.run_dir, kept)
    again.hooks.catch_up(again.at)
    await again.hooks.finish()
    assert [record["text"] for record in received(out)] == ["first", "second"]
    once_more = HookedRun(run.run_dir, again.state)
    once_more.hooks.catch_up(once_more.at)
    await once_more.hooks.finish()
    assert [record["text"] for record in received(out)] == ["first", "second"]


async def test_a_run_without_hooks_at_starts_with_the_next_record(
    run: HookedRun, configure: Configure, tmp_path: Path
) -> None:
    out = tmp_path / "received"
    configure(nan=f"cat >> {out}")
    run.log.write(Alert(what="nan", text="long ago"))
    later = HookedRun(run.run_dir, RunStatus(phase="running"))
    later.hooks.catch_up(later.at)
    later.write(Alert(what="nan", text="now"))
    await later.hooks.finish()
    assert [record["text"] for record in received(out)] == ["now"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[on_event]\nfinish = "x"', "on_event.finish: unknown event; did you mean finished?"),
        ('[on_event]\nzebra = "x"', "on_event.zebra: unknown event; the events are finished, failed, needs-attention,"),
        ('[on_event]\nnan = ""', "on_event.nan: '' is not a command; write a shell command in quotes"),
        ("[on_event]\nnan = 3", "on_event.nan: 3 is not a command"),
        ('[on_event]\nnan = "a\\u0000"', "on_event.nan: 'a\\x00' is not a command"),
        ("[on_event]\na" + ".a" * 4000 + " = 3", "is nested more than 32 deep"),
        ('finished = "x"', "finished: unknown; commands belong in the table [on_event]"),
        ("on_event = 3", "on_event: 3 is not a table"),
        ("[on_event", "not valid TOML"),
    ],
)
def test_a_mistake_names_file_and_key(configure: Configure, text: str, message: str) -> None:
    path = configure(text)
    with pytest.raises(SpecError) as caught:
        hooks.load()
    assert str(caught.value).startswith(f"{path}: {message}")


def test_without_a_file_there_are_no_hooks(configure: Configure) -> None:
    assert hooks.load() == {}
