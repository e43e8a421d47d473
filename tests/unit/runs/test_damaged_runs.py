"""Runs whose files are damaged, missing or of another kind: each is one line, and hides no other run."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from engine.events.log import LogWriter
from engine.events.log_index import LogIndex
from engine.events.run_dir import RunDir
from engine.events.status import Launch, ProcessStatus, RunStatus
from engine.events.types import Checkpoint, State, Step, Val
from engine.host.files import write_json
from engine.host.process import boot_id, host_name, is_alive, process_identity
from engine.host.struct_json import encode, write_struct
from engine.runs.client import RunClient
from engine.runs.store import RunStore
from profiles import registry
from profiles.errors import UserError
from tests.unit.conftest import DEAD, Make
from tui.cli.main import main

FROM_LOG = (
    "phase",
    "reason",
    "step",
    "loss",
    "val_loss",
    "bits_per_byte",
    "checkpoint",
    "attempt",
    "ended",
    "micro",
    "accum",
    "context",
)
FROM_SPEC = ("id", "name", "host", "steps", "profile", "backend")


@pytest.fixture(autouse=True)
def home(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLA_TUI_HOME", str(store.home))


@pytest.fixture
def run(make_run: Make) -> RunDir:
    """A finished run, with the files that its supervisor leaves."""
    run = make_run("mine", backend="auto", profile="cpu_demo", steps=300)
    log = LogWriter(run.log_path, 2)
    log.write(State(phase="running", reason=""))
    for step in range(1, 9):
        log.write(Step(step=step, loss=3 / step, tok_s=10.5, micro=4, accum=2, context=32))
    log.write(Val(step=8, loss=2.5))
    log.write(Checkpoint(ok=True, path="/x/ckpt_step_8", step=8, bytes=12))
    log.write(State(phase="finished", reason=""))
    log.close()
    index = LogIndex(run)
    index.catch_up()
    index.save()
    index.close()
    write_struct(run.state_path, index.state)
    write_struct(run.trainer_identity_path, DEAD)
    return run


def flip_first_byte(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])


def replace_by_fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def replace_by_folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def nest(path: Path) -> None:
    path.write_text('{"a":' * 5000)


def remove(path: Path) -> None:
    path.unlink(missing_ok=True)


DAMAGES: list[Callable[[Path], None]] = [flip_first_byte, replace_by_fifo, replace_by_folder, nest, remove]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_is_read_from_the_log(run: RunDir, damage: Callable[[Path], None]) -> None:
    before = run.summary()
    damage(run.state_path)
    after, known = run.summary(), (*FROM_LOG, *FROM_SPEC)
    assert [getattr(after, key) for key in known] == [getattr(before, key) for key in known]
    kind = "missing" if damage is remove else "damaged"
    assert (before.damage, after.damage) == (None, f"state.json is {kind}; read from the log")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["state.json", "spec.json", "events.jsonl", "trainer.json", "history.bin"])
def test_ls_has_one_line_a_run_whatever_is_damaged(
    run: RunDir, make_run: Make, capsys: pytest.CaptureFixture[str], name: str, damage: Callable[[Path], None]
) -> None:
    other = make_run("other", phase="finished")
    damage(run.path / name)
    for command in (["ls"], ["ls", "--json"], ["status", run.id]):
        assert main(command) == 0
        out, err = capsys.readouterr()
        assert err == ""
        if command == ["ls"]:
            lines = out.splitlines()[1:]
            assert sorted(line.split()[0] for line in lines) == sorted([run.id, other.id])
            mine = next(line for line in lines if run.id in line)
            assert ("spec.json is" in mine, "state.json is" in mine) == (name == "spec.json", name == "state.json")


@pytest.mark.parametrize("name", ["state.json", "spec.json", "events.jsonl", "history.bin", "supervisor.lock"])
def test_a_fifo_among_its_files_does_not_hold_up_a_watcher(run: RunDir, name: str) -> None:
    replace_by_fifo(run.path / name)
    assert main(["watch", run.id, "--no-follow"]) == 0
    asyncio.run(RunClient(run).history(["loss"]))


def test_what_a_terminal_would_obey_is_not_printed(
    run: RunDir, store: RunStore, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = dict.fromkeys(("name", "reason", "backend", "version"), "a\nb\x1b[2J")
    write_json(run.state_path, json.loads(run.state_path.read_text()) | shown)
    for name in ("29990101-\n\x1b[2J", "-rf", "$(id)", "my copy"):  # no words of a shell
        (store.runs / name).mkdir(mode=0o700)
    for command in (["ls"], ["status", run.id]):
        assert main(command) == 0
        out, err = capsys.readouterr()
        assert all(line.isprintable() for line in (out + err).splitlines())
        assert "a b\\x1b[2J" in out
        assert len(err.splitlines()) == (4 if command == ["ls"] else 0)
        assert err.count("is not the name of a run, it is ignored; rename or remove it") == err.count("\n")
    assert store.ids() == [run.id]


def test_an_end_of_which_the_log_does_not_know_is_not_believed(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    """The state of another time or run: the log goes on behind it."""
    state = run.state()
    assert state.phase == "finished"
    log = LogWriter(run.log_path, 3)
    log.write(State(phase="running", reason=""))
    log.write(Step(step=9, loss=0.25))
    log.close()
    state.trainer = state.supervisor = DEAD
    write_struct(run.state_path, state)
    assert (run.summary().phase, run.summary().step, run.ended()) == ("cut-off", 9, False)
    assert main(["ls"]) == 0
    assert "cut-off" in capsys.readouterr().out
    state.at = run.log_path.stat().st_size
    write_struct(run.state_path, state)
    with run.log_path.open("a") as torn:  # a full disk: the state is all that could be written
        torn.write('{"kind":"state","phase":"runn')
    assert run.summary().phase == "finished"


def test_an_id_is_one_word_for_a_shell(store: RunStore) -> None:
    spec = replace(registry.load("cpu_demo"), profile="my 'own' $(id)")
    assert store.create(spec, Launch(), RunStatus(phase="finished")).id[15:] == "-my-own-id-"


def test_a_folder_that_is_no_run_is_one_line_and_can_be_removed(
    run: RunDir, store: RunStore, capsys: pytest.CaptureFixture[str]
) -> None:
    (store.runs / "20260101-000000-empty").mkdir(mode=0o700)
    assert main(["ls"]) == 0
    out, err = capsys.readouterr()
    line = "spec.json is missing; remove the run with: mla-tui rm 20260101-000000-empty"
    assert [line in text for text in out.splitlines()] == [False, False, True]
    assert "damaged" in out and "resume" not in err
    for command in ("stop", "pause", "resume"):
        assert main([command, "empty"]) == 1
        assert capsys.readouterr().err == f"mla-tui: run 20260101-000000-empty: {line}\n"
    assert main(["rm", "empty"]) == 0
    assert store.ids() == [run.id]


def test_a_cut_off_run_with_a_damaged_state_is_still_known_to_be_of_this_host(make_run: Make) -> None:
    run = make_run("mine", phase="running")
    LogWriter(run.log_path, 1).write(State(phase="running", reason=""))
    run.state_path.write_bytes(b"\x00" * 100)
    assert run.is_on_this_boot()
    assert (run.summary().phase, run.summary().host) == ("cut-off", host_name())
    run.trainer_identity_path.write_text(encode(process_identity(os.getpid())).decode())
    assert run.summary().trainer == ProcessStatus(os.getpid(), True)
    assert run.summary().phase == "running"


@pytest.mark.parametrize(
    "fields",
    [
        {"phase": 7},
        {"step": [], "steps": "x", "micro": {}},
        {"name": ["a"], "host": 3, "boot": {}},
        {"supervisor": "1", "trainer": [1]},
        {"supervisor": {"pid": "1"}, "trainer": {"pid": 1 << 40, "start_ticks": 1}},
        {"attempt": -1, "at": "x", "hooks_at": "y", "launched": [], "started": {}, "ended": True},
        {"exit": {"code": "x"}, "live": [1], "checkpoint": 7, "checkpoint_bytes": "many"},
        {"loss": "low", "val_loss": [], "tok_s": {}, "context": True},
    ],
    ids=lambda fields: next(iter(fields)),
)
@pytest.mark.parametrize("phase", ["running", "finished"])
def test_fields_of_the_wrong_type_are_ignored(
    make_run: Make, capsys: pytest.CaptureFixture[str], fields: dict[str, object], phase: str
) -> None:
    run = make_run("mine", phase=phase)
    run.state_path.write_text(json.dumps({**json.loads(run.state_path.read_text()), **fields}))
    for command in (["ls"], ["ls", "--json"], ["status", run.id], ["status", run.id, "--json"], ["rm", run.id]):
        assert main(command) == 0
    assert "Traceback" not in capsys.readouterr().err


def test_the_identity_of_a_trainer_is_used_only_if_it_can_be_one(make_run: Make) -> None:
    run = make_run()
    for content in ("[]", '{"pid": "1"}', '{"pid": 1099511627776}', '{"pid": -1}', '{"pid": 1, "start_ticks": "x"}'):
        run.trainer_identity_path.write_text(content)
        assert run.trainer_identity() is None
    assert not is_alive(DEAD)
    assert is_alive(process_identity(os.getpid()))


def test_a_name_in_the_spec_that_leads_elsewhere_is_refused(make_run: Make) -> None:
    run = make_run("mine")
    path = run.path / "spec.json"
    content = json.loads(path.read_text())
    assert (content["start"]["host"], content["start"]["boot"]) == (host_name(), boot_id())
    content["start"]["name"] = "../../elsewhere"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"spec\.json: start: name '\.\./\.\./elsewhere': use a name of"):
        run.spec()
    content["start"] |= {"name": ["x"], "resume": 7, "init_from": {}}
    path.write_text(json.dumps(content))
    assert run.name == run.id
    assert run.spec().profile == "cpu_demo"
    assert run.launch() == Launch(host=host_name(), boot=boot_id())
