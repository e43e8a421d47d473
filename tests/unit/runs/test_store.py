"""The store: ids, finding and creating runs, and the state of a run whose processes are gone."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from engine.events.log import LogWriter
from engine.events.run_dir import RunDir
from engine.events.status import Launch, ProcessStatus, RunStatus
from engine.events.status_updates import update_status
from engine.events.types import Alert, Checkpoint, Event, Log, Spec, State, Step, Val
from engine.host.files import write_json
from engine.host.process import Lock, process_identity
from engine.host.struct_json import to_dict, write_struct
from engine.runs.store import FORMAT, RunStore
from profiles import registry
from profiles.errors import UserError
from profiles.paths import default_home
from tests.unit.conftest import DEAD, Make
from tests.unit.disk_faults import fault_at
from tui.app.state.run_view import RunView
from tui.cli.main import main


def refused(store: RunStore, text: str) -> str:
    with pytest.raises(UserError) as caught:
        store.find(text)
    return str(caught.value)


def test_the_home_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("MLA_TUI_HOME", raising=False)
    assert default_home() == tmp_path / "mla-tui"
    monkeypatch.setenv("MLA_TUI_HOME", str(tmp_path / "here"))
    assert default_home() == tmp_path / "here"
    assert RunStore().runs == tmp_path / "here" / "runs"


def test_an_id_has_time_and_profile_and_only_the_owner_may_read(store: RunStore, make_run: Make) -> None:
    run = make_run("mine")
    assert re.fullmatch(r"\d{8}-\d{6}-cpu_demo", run.id)
    assert abs(time.mktime(time.strptime(run.id[:15], "%Y%m%d-%H%M%S")) - time.mktime(time.gmtime())) < 60
    for folder in (store.home, store.runs, run.path):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert run.name == "mine"
    assert run.spec() == registry.load("cpu_demo")


def test_a_run_without_a_name_is_named_by_its_id(make_run: Make) -> None:
    run = make_run()
    assert run.name == run.id == run.summary().name


def test_find(store: RunStore, make_run: Make) -> None:
    first, second = make_run("alpha"), make_run("alpha")
    for run, id in ((first, "20260101-000000-cpu_demo"), (second, "20260202-000000-pretrain_5080")):
        os.rename(run.path, store.runs / id)
    assert store.ids() == ["20260202-000000-pretrain_5080", "20260101-000000-cpu_demo"]
    assert [s.name for s in store.summaries()] == ["alpha", "alpha"]
    assert store.find("latest").id == "20260202-000000-pretrain_5080"
    assert store.find("20260101-000000-cpu_demo").id == "20260101-000000-cpu_demo"
    assert store.find("demo").id == "20260101-000000-cpu_demo"
    assert store.find("0202").id == "20260202-000000-pretrain_5080"
    assert store.find("alpha").id == "20260202-000000-pretrain_5080"  # the newest of that name
    assert refused(store, "2026") == (
        "run '2026': matches 20260202-000000-pretrain_5080, 20260101-000000-cpu_demo; write more of the id"
    )
    assert refused(store, "zebra") == (
        "run 'zebra': no such run; the newest is 20260202-000000-pretrain_5080 (mla-tui ls shows all)"
    )


def test_without_runs_find_says_how_to_start_one(store: RunStore) -> None:
    assert refused(store, "latest") == (
        f"run 'latest': there are no runs in {store.runs} (train leaves none); start one with: mla-tui launch"
    )


def test_an_empty_text_matches_no_run_even_where_there_is_only_one(store: RunStore, make_run: Make) -> None:
    id = make_run().id
    assert refused(store, "") == f"run '': write a part of an id, a name or latest; the newest is {id}"


def test_only_folders_are_runs(store: RunStore, make_run: Make) -> None:
    run = make_run()
    (store.runs / "zz-notes.txt").write_text("")
    (store.runs / ".new-1-2").mkdir()
    assert store.ids() == [run.id]


def test_what_a_killed_launch_left_goes_with_the_next(store: RunStore, make_run: Make) -> None:
    """A killed one has made no run, or a whole one."""
    for number in range(1, 20):
        known = set(store.ids())
        reached, _ = fault_at(number, make_run)
        for id in set(store.ids()) - known:
            assert store.find(id).spec() == registry.load("cpu_demo")
        make_run()
        assert not list(store.runs.glob(".*"))
        if not reached:
            break
    assert number > 5


def test_a_run_removed_during_a_listing_hides_no_other(store: RunStore, make_run: Make) -> None:
    id = make_run().id
    removed = [store.runs / f"20260101-000000-{number}" for number in range(2000)]
    for folder in removed:
        folder.mkdir()

    def remove() -> None:
        for folder in removed:
            folder.rmdir()

    remover = threading.Thread(target=remove)
    remover.start()
    while remover.is_alive():
        assert store.ids()[0] == id
    assert store.ids() == [id]


def test_a_home_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    store = RunStore(tmp_path / "home")
    with pytest.raises(UserError, match="cannot be read: Not a directory; check MLA_TUI_HOME"):
        store.ids()
    with pytest.raises(UserError, match=r"cannot create a run: .*; set MLA_TUI_HOME to a directory you can write to"):
        store.create(registry.load("cpu_demo"), Launch(), RunStatus(phase="starting"))


@pytest.fixture
def old_home(store: RunStore) -> Path:
    """The state directory of mla-tui 0.1, which kept its runs in ``jobs``."""
    folder = store.home / "jobs" / "20260101-000000-cpu_demo"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text("{}")
    return store.home


def test_a_state_directory_of_0_1_is_refused_and_left_unchanged(old_home: Path) -> None:
    before = [(path, path.lstat().st_mtime_ns) for path in sorted(old_home.rglob("*"))]
    with pytest.raises(UserError) as caught:
        RunStore(old_home)
    assert str(caught.value) == (
        f"{old_home}: holds runs of mla-tui 0.1, which this version does not read; finish them with 0.1,"
        f" or move {old_home}/jobs away or set MLA_TUI_HOME to another directory"
    )
    assert [(path, path.lstat().st_mtime_ns) for path in sorted(old_home.rglob("*"))] == before
    os.rename(old_home / "jobs", old_home / "jobs-of-0.1")
    assert RunStore(old_home).ids() == []


@pytest.mark.parametrize(
    "command",
    [
        ["ls"],
        ["status", "latest"],
        ["attach", "latest"],
        ["watch", "latest"],
        ["resume", "--cut-off"],
        ["launch", "-p", "cpu_demo"],
        ["doctor"],
        ["tune", "-p", "cpu_demo"],
        [],
    ],
)
def test_every_command_that_opens_the_store_refuses_a_state_directory_of_0_1(
    old_home: Path, command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLA_TUI_HOME", str(old_home))
    assert main(command) == 1
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert err.startswith(f"mla-tui: {old_home}: holds runs of mla-tui 0.1, ")
    assert [path.name for path in old_home.iterdir()] == ["jobs"]


def test_a_folder_named_jobs_without_runs_in_it_is_no_state_directory_of_0_1(store: RunStore) -> None:
    store.home.mkdir()
    (store.home / "jobs").touch()
    RunStore(store.home)
    (store.home / "jobs").unlink()
    (store.home / "jobs" / ".new-1-2").mkdir(parents=True)
    (store.home / "jobs" / "notes.txt").touch()
    RunStore(store.home)


def test_a_link_to_itself_hides_no_run(store: RunStore, make_run: Make) -> None:
    run = make_run()
    (store.runs / "loop").symlink_to("loop")
    assert store.ids() == [run.id]


def test_a_run_of_a_newer_format_is_refused(store: RunStore, make_run: Make) -> None:
    run = make_run()
    assert run.state().format == FORMAT
    write_json(run.state_path, {**to_dict(run.state()), "format": FORMAT + 1, "version": "9.0"})
    assert refused(store, "latest") == (
        f"run {run.id}: was created by mla-tui 9.0 in format {FORMAT + 1}, this version reads up to {FORMAT};"
        " update mla-tui"
    )
    write_json(run.state_path, {**to_dict(run.state()), "format": "damaged"})
    assert store.find("latest").id == run.id


CREATE = """
import sys
from pathlib import Path
from engine.events.status import Launch, RunStatus
from engine.runs.store import RunStore
from profiles import registry
spec = registry.load("cpu_demo")
for _ in range(20):
    print(RunStore(Path(sys.argv[1])).create(spec, Launch(name=sys.argv[2]), RunStatus(phase="starting")).id)
"""


def test_two_processes_that_launch_in_the_same_second_get_runs_of_their_own(store: RunStore) -> None:
    argv = [sys.executable, "-c", CREATE, str(store.home)]
    both = [subprocess.Popen([*argv, name], stdout=subprocess.PIPE, text=True) for name in ("a", "b")]
    made = [process.communicate()[0].split() for process in both]
    assert len({*made[0], *made[1]}) == 40
    assert sorted(store.ids()) == sorted(made[0] + made[1])
    assert not list(store.runs.glob(".*"))
    for ids, name in zip(made, ("a", "b"), strict=True):
        for id in ids:
            run = store.find(id)
            assert (run.name, run.state().id, run.spec().profile) == (name, id, "cpu_demo")


def test_the_newest_is_the_latest_also_after_the_clock_was_set_back(store: RunStore, make_run: Make) -> None:
    first = make_run("before")
    ahead = time.strftime("%Y%m%d-%H%M%S", time.gmtime(time.time() + 3600))
    os.rename(first.path, store.runs / f"{ahead}-longctx_5090")
    (store.runs / "zz-put-here-by-hand").mkdir()
    made = [make_run(name).id for name in ("after", "later", "last")]
    assert sorted(made) == made
    assert store.ids()[1:] == [*reversed(made), f"{ahead}-longctx_5090"]


# -- a run without a supervisor


def test_a_cut_off_run_is_read_from_its_log(make_run: Make) -> None:
    run = make_run(supervisor=DEAD, trainer=DEAD, step=3, loss=9.0)  # an outdated state
    log = LogWriter(run.log_path, 2)
    log.write(Step(step=41, loss=2.5, tok_s=100.0, micro=4, accum=2, context=256))
    log.write(Val(step=41, loss=2.75))
    log.write(Checkpoint(step=41, path="/x/ckpt_step_41", ok=True))
    log.write(Checkpoint(step=42, path="/x/ckpt_step_42", ok=False))
    summary = run.summary()
    assert (summary.phase, summary.reason) == ("cut-off", "neither trainer nor supervisor is alive")
    assert (summary.step, summary.loss, summary.val_loss) == (41, 2.5, 2.75)
    assert (summary.micro, summary.accum, summary.attempt) == (4, 2, 2)
    assert summary.checkpoint == "/x/ckpt_step_41"
    assert summary.trainer == ProcessStatus(DEAD.pid, False)
    assert summary.tok_s is None  # 100 was the speed of its last step


def test_an_end_that_is_only_in_the_log_counts(make_run: Make) -> None:
    run = make_run(supervisor=DEAD, trainer=DEAD)
    LogWriter(run.log_path, 1).write(State(phase="finished", reason=""))
    assert run.summary().phase == "finished"
    assert run.summary().ended is not None


def test_a_run_whose_trainer_is_alive_without_a_supervisor_is_running(make_run: Make) -> None:
    run = make_run(supervisor=DEAD, trainer=process_identity(os.getpid()))
    LogWriter(run.log_path, 1).write(Step(step=7, loss=1.0))
    summary = run.summary()
    assert (summary.phase, summary.step, summary.trainer.alive) == ("running", 7, True)


STEP = Step(step=7, loss=1.0, tok_s=4321.0)


@pytest.mark.parametrize("over", [Alert(what="stall-over"), STEP], ids=["progress", "step"])
def test_a_run_that_makes_no_steps_has_no_speed(
    store: RunStore, make_run: Make, over: Event, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLA_TUI_HOME", str(store.runs.parent))
    run = make_run(supervisor=DEAD, trainer=process_identity(os.getpid()))
    log = LogWriter(run.log_path, 1)
    stall, line = Alert(what="stall", text="no progress for 48 s"), Log(level="info", text="a line")
    stalls = [(STEP, "running"), (stall, "stalled"), (line, "stalled"), (over, "running")]
    others = [(State(phase=phase), phase) for phase in ("paused", "running", "stopping", "recovering", "starting")]
    for event, phase in (*stalls, *others):
        log.write(event)
        assert main(["ls"]) == 0
        listed = capsys.readouterr().out.split()
        assert (phase in listed, "4321" in listed) == (True, phase == "running")


def test_the_end_of_a_long_log_is_enough(make_run: Make) -> None:
    run = make_run(supervisor=DEAD, trainer=DEAD)
    log = LogWriter(run.log_path, 1)
    for step in range(1, 3001):
        log.write(Step(step=step, loss=1.0, lr=1e-3 / 7, grad_norm=1 / 3, tok_s=1e6 / 7, step_s=1 / 7, data_s=1 / 70))
    assert run.summary().step == 3000


def test_a_run_of_an_earlier_boot_was_cut_off_by_the_reboot(make_run: Make) -> None:
    run = make_run(trainer=process_identity(os.getpid()), boot="another")
    LogWriter(run.log_path, 1).write(Step(step=7, loss=1.0))
    summary = run.summary()
    assert (summary.phase, summary.reason, summary.step) == ("cut-off", "the machine was rebooted", 7)


def test_a_run_that_goes_on_does_not_keep_the_reason(make_run: Make) -> None:
    run = make_run()
    status, view = run.state(), RunView(run.summary())
    for phase, reason in (("paused", "requested from the app"), ("running", "")):
        event = State(phase=phase, reason="requested from the app")
        update_status(status, event)
        view.apply(None, event)
        assert (status.phase, status.reason, view.phase, view.reason) == (phase, reason, phase, reason)


def test_whether_a_run_of_another_host_is_alive_is_unknown(make_run: Make) -> None:
    run = make_run(trainer=DEAD, supervisor=DEAD, host="elsewhere", boot="another")
    log = LogWriter(run.log_path, 1)
    log.write(State(phase="paused", reason="requested from the app"))
    summary = run.summary()
    seen = time.strftime("%H:%M", time.localtime(summary.seen))
    said = f"last seen paused {seen} on elsewhere"
    assert (summary.phase, summary.reason, summary.host) == ("paused", said, "elsewhere")
    log.write(State(phase="finished", reason=""))
    assert (run.summary().phase, run.summary().reason) == ("finished", "")


@pytest.mark.parametrize(("role", "phase"), [("supervisor", "recovering"), ("trainer", "running")])
def test_a_run_whose_lock_is_held_is_alive_although_its_state_names_no_process(
    make_run: Make, role: str, phase: str
) -> None:
    """A full disk keeps the pid out of the state."""
    run = make_run(supervisor=DEAD, trainer=DEAD)
    lock = Lock(run.path / f"{role}.lock")
    assert lock.acquire()
    assert run.summary().phase == phase
    lock.release()
    assert run.summary().phase == "cut-off"


def test_a_new_run_is_starting_and_later_cut_off(make_run: Make) -> None:
    assert make_run(phase="starting", launched=time.monotonic()).summary().phase == "starting"
    assert make_run(phase="starting", launched=time.monotonic() - 60).summary().phase == "cut-off"
    assert make_run(phase="starting").summary().phase == "cut-off"


@pytest.mark.parametrize("started", [-86400, 86400])
def test_setting_the_clock_does_not_change_whether_a_run_is_new(make_run: Make, started: float) -> None:
    shifted = time.time() + started
    assert make_run(phase="starting", started=shifted, launched=time.monotonic()).summary().phase == "starting"
    assert make_run(phase="starting", started=shifted, launched=time.monotonic() - 60).summary().phase == "cut-off"


def test_without_a_state_the_log_decides(make_run: Make) -> None:
    run = make_run()
    run.state_path.write_text("{damaged")
    assert run.summary().phase == "cut-off"
    LogWriter(run.log_path, 1).write(State(phase="stopped", reason=""))
    assert run.summary().phase == "stopped"


def test_a_damaged_spec_names_the_fix(make_run: Make) -> None:
    run = make_run()
    (run.path / "spec.json").write_text("")
    with pytest.raises(UserError, match=rf"spec\.json: missing or damaged; remove the run with: mla-tui rm {run.id}"):
        run.spec()


# -- removing


def test_a_copy_of_a_living_run_has_no_processes(store: RunStore, make_run: Make) -> None:
    """Neither is it running, nor would its processes, which serve the run it is a copy of, read its commands."""
    run = make_run("mine")
    words = [sys.executable, "-c", "input()", "--run-dir", str(run.path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE) as process:
        identity = process_identity(process.pid)
        write_struct(run.state_path, RunStatus(**{**to_dict(run.state()), "supervisor": identity, "trainer": identity}))
        write_struct(run.trainer_identity_path, identity)
        copy = RunDir(Path(shutil.copytree(run.path, store.runs / "20200101-000000-copy")))
        alive = [(each.summary().phase, each.has_supervisor(), each.has_trainer()) for each in (run, copy)]
        assert alive == [("running", True, True), ("cut-off", False, False)]
        process.kill()


def test_the_live_spec_holds_every_edit_so_far(make_run: Make) -> None:
    run = make_run("mine")
    assert run.live_spec() == run.spec()
    log = LogWriter(run.log_path, 1)
    log.write(Spec(step=3, values={"batch.micro": 2, "optim.lr_scale": 0.5, "train.stop_step": 40}))
    live = run.live_spec()
    assert (live.batch.micro, live.optim.lr_scale, live.train.stop_step) == (2, 0.5, 40)
    assert live.batch.sequences == run.spec().batch.sequences
    log.write(Spec(step=9, values={"batch.micro": 0}))
    with pytest.raises(UserError, match=r"events.jsonl: batch.micro: 0 is not in 1..4096"):
        run.live_spec()
