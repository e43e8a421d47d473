"""The store: ids, finding, creating, forgetting, and what the files of a job say when nobody is alive to ask."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from engine.events.log import LogWriter
from engine.host.process import Lock, identity
from engine.runs.store import Store, default_home
from profiles import registry
from profiles.errors import UserError

if TYPE_CHECKING:
    from conftest import Make

DEAD = {"pid": 2**22 + 1, "start_ticks": 1}  # above the largest pid there can be


def refused(store: Store, text: str) -> str:
    with pytest.raises(UserError) as caught:
        store.find(text)
    return str(caught.value)


def test_the_home_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("MLA_TUI_HOME", raising=False)
    assert default_home() == tmp_path / "mla-tui"
    monkeypatch.setenv("MLA_TUI_HOME", str(tmp_path / "here"))
    assert default_home() == tmp_path / "here"
    assert Store().jobs == tmp_path / "here" / "jobs"


def test_an_id_says_when_and_what_and_nobody_else_may_read(store: Store, make_job: Make) -> None:
    job = make_job("mine")
    assert re.fullmatch(r"\d{8}-\d{6}-cpu_demo", job.id)
    assert abs(time.mktime(time.strptime(job.id[:15], "%Y%m%d-%H%M%S")) - time.mktime(time.gmtime())) < 60
    for folder in (store.home, store.jobs, job.path):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert job.name == "mine"
    assert job.spec() == registry.load("cpu_demo")


def test_a_job_without_a_name_is_named_by_its_id(make_job: Make) -> None:
    job = make_job()
    assert job.name == job.id == job.summary()["name"]


def test_find(store: Store, make_job: Make) -> None:
    first, second = make_job("alpha"), make_job("alpha")
    for job, id in ((first, "20260101-000000-cpu_demo"), (second, "20260202-000000-pretrain_5080")):
        os.rename(job.path, store.jobs / id)
    assert store.ids() == ["20260202-000000-pretrain_5080", "20260101-000000-cpu_demo"]
    assert [s["name"] for s in store.summaries()] == ["alpha", "alpha"]
    assert store.find("latest").id == "20260202-000000-pretrain_5080"
    assert store.find("20260101-000000-cpu_demo").id == "20260101-000000-cpu_demo"
    assert store.find("demo").id == "20260101-000000-cpu_demo"
    assert store.find("0202").id == "20260202-000000-pretrain_5080"
    assert store.find("alpha").id == "20260202-000000-pretrain_5080"  # of one name, the newest
    assert refused(store, "2026") == (
        "job '2026': matches 20260202-000000-pretrain_5080, 20260101-000000-cpu_demo; write more of the id"
    )
    assert refused(store, "zebra") == (
        "job 'zebra': no such job; the newest is 20260202-000000-pretrain_5080 (mla-tui ls shows all)"
    )


def test_without_jobs_finding_says_how_to_start_one(store: Store) -> None:
    assert refused(store, "latest") == (
        f"job 'latest': there are no jobs in {store.jobs}; start one with: mla-tui launch"
    )


def test_no_text_means_no_job_even_where_there_is_only_one(store: Store, make_job: Make) -> None:
    id = make_job().id
    assert refused(store, "") == f"job '': write a part of an id, a name or latest; the newest is {id}"


def test_only_folders_are_jobs(store: Store, make_job: Make) -> None:
    job = make_job()
    (store.jobs / "zz-notes.txt").write_text("")
    (store.jobs / ".new-1-2").mkdir()
    assert store.ids() == [job.id]


def test_a_job_that_is_removed_while_others_are_listed_takes_none_with_it(store: Store, make_job: Make) -> None:
    id = make_job().id
    removed = [store.jobs / f"20260101-000000-{number}" for number in range(2000)]
    for folder in removed:
        folder.mkdir()
    remover = threading.Thread(target=lambda: [folder.rmdir() for folder in removed])
    remover.start()
    while remover.is_alive():
        assert store.ids()[0] == id
    assert store.ids() == [id]


def test_a_home_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    store = Store(tmp_path / "home")
    with pytest.raises(UserError, match="cannot be read: Not a directory; check MLA_TUI_HOME"):
        store.ids()
    with pytest.raises(UserError, match=r"cannot create a job: .*; set MLA_TUI_HOME to a directory you can write to"):
        store.create(registry.load("cpu_demo"), {}, {})


CREATE = """
import sys
from pathlib import Path
from engine.runs.store import Store
from profiles import registry
spec = registry.load("cpu_demo")
for _ in range(20):
    print(Store(Path(sys.argv[1])).create(spec, {"name": sys.argv[2]}, {"phase": "starting"}).id)
"""


def test_two_processes_that_launch_in_the_same_second_get_jobs_of_their_own(store: Store) -> None:
    argv = [sys.executable, "-c", CREATE, str(store.home)]
    both = [subprocess.Popen([*argv, name], stdout=subprocess.PIPE, text=True) for name in ("a", "b")]
    made = [process.communicate()[0].split() for process in both]
    assert len({*made[0], *made[1]}) == 40
    assert sorted(store.ids()) == sorted(made[0] + made[1])
    assert not list(store.jobs.glob(".*"))
    for ids, name in zip(made, ("a", "b"), strict=True):
        for id in ids:
            job = store.find(id)
            assert (job.name, job.state()["id"], job.spec().profile) == (name, id, "cpu_demo")


def test_the_newest_is_the_latest_also_after_the_clock_was_set_back(store: Store, make_job: Make) -> None:
    first = make_job("before")
    ahead = time.strftime("%Y%m%d-%H%M%S", time.gmtime(time.time() + 3600))
    os.rename(first.path, store.jobs / f"{ahead}-longctx_5090")
    (store.jobs / "zz-put-here-by-hand").mkdir()
    made = [make_job(name).id for name in ("after", "later", "last")]
    assert sorted(made) == made
    assert store.ids()[1:] == [*reversed(made), f"{ahead}-longctx_5090"]


# -- a job whose supervisor is gone


def test_a_job_cut_off_is_read_from_its_log(make_job: Make) -> None:
    job = make_job(supervisor=DEAD, trainer=DEAD, step=3, loss=9.0)  # a state that is out of date
    log = LogWriter(job.log_path, 2)
    log.write("step", step=41, loss=2.5, tok_s=100.0, micro=4, accum=2, context=256)
    log.write("val", step=41, loss=2.75)
    log.write("checkpoint", step=41, path="/x/ckpt_step_41", ok=True)
    log.write("checkpoint", step=42, path="/x/ckpt_step_42", ok=False)
    summary = job.summary()
    assert (summary["phase"], summary["reason"]) == ("cut-off", "neither trainer nor supervisor is alive")
    assert [summary[k] for k in ("step", "loss", "val_loss", "micro", "accum", "attempt")] == [41, 2.5, 2.75, 4, 2, 2]
    assert summary["checkpoint"] == "/x/ckpt_step_41"
    assert summary["trainer"] == {"pid": DEAD["pid"], "alive": False}


def test_an_end_that_only_the_log_knows_is_an_end(make_job: Make) -> None:
    job = make_job(supervisor=DEAD, trainer=DEAD)
    LogWriter(job.log_path, 1).write("state", phase="finished", reason="")
    assert job.summary()["phase"] == "finished"
    assert job.summary()["ended"] is not None


def test_a_trainer_that_lives_without_a_supervisor_still_runs(make_job: Make) -> None:
    job = make_job(supervisor=DEAD, trainer=identity(os.getpid()))
    LogWriter(job.log_path, 1).write("step", step=7, loss=1.0)
    summary = job.summary()
    assert (summary["phase"], summary["step"], summary["trainer"]["alive"]) == ("running", 7, True)


def test_the_end_of_a_long_log_is_enough(make_job: Make) -> None:
    job = make_job(supervisor=DEAD, trainer=DEAD)
    log = LogWriter(job.log_path, 1)
    for step in range(1, 3001):
        log.write("step", step=step, loss=1.0, text="x" * 200)
    assert job.summary()["step"] == 3000


def test_a_pid_used_again_is_not_the_trainer(make_job: Make) -> None:
    job = make_job(supervisor=DEAD, trainer={**identity(os.getpid()), "start_ticks": 1})
    assert not job.summary()["trainer"]["alive"]


@pytest.mark.parametrize("where", [{"host": "elsewhere"}, {"boot": "another"}])
def test_a_pid_of_another_host_or_boot_says_nothing(make_job: Make, where: dict[str, str]) -> None:
    job = make_job(trainer=identity(os.getpid()), **where)
    assert not job.summary()["trainer"]["alive"]


def test_a_job_of_an_earlier_boot_was_cut_off_by_it(make_job: Make) -> None:
    job = make_job(trainer=identity(os.getpid()), boot="another")
    LogWriter(job.log_path, 1).write("step", step=7, loss=1.0)
    summary = job.summary()
    assert (summary["phase"], summary["reason"], summary["step"]) == ("cut-off", "the machine was rebooted", 7)


def test_whether_a_job_of_another_host_lives_is_not_claimed(make_job: Make) -> None:
    job = make_job(trainer=DEAD, supervisor=DEAD, host="elsewhere", boot="another")
    log = LogWriter(job.log_path, 1)
    log.write("state", phase="paused", reason="asked by me")
    summary = job.summary()
    assert [summary[key] for key in ("phase", "reason", "host")] == ["paused", "on host elsewhere", "elsewhere"]
    log.write("state", phase="finished", reason="")
    assert [job.summary()[key] for key in ("phase", "reason")] == ["finished", ""]


def test_a_job_just_created_is_starting_and_later_cut_off(make_job: Make) -> None:
    assert make_job(phase="starting", launched=time.monotonic()).summary()["phase"] == "starting"
    assert make_job(phase="starting", launched=time.monotonic() - 60).summary()["phase"] == "cut-off"
    assert make_job(phase="starting").summary()["phase"] == "cut-off"


@pytest.mark.parametrize("started", [-86400, 86400])
def test_a_clock_that_was_set_anew_makes_no_young_job_old_and_no_old_job_young(make_job: Make, started: float) -> None:
    set_anew = time.time() + started
    assert make_job(phase="starting", started=set_anew, launched=time.monotonic()).summary()["phase"] == "starting"
    assert make_job(phase="starting", started=set_anew, launched=time.monotonic() - 60).summary()["phase"] == "cut-off"


def test_without_a_state_the_log_tells(make_job: Make) -> None:
    job = make_job()
    job.state_path.write_text("{damaged")
    assert job.summary()["phase"] == "cut-off"
    LogWriter(job.log_path, 1).write("state", phase="stopped", reason="")
    assert job.summary()["phase"] == "stopped"


def test_a_damaged_spec_names_the_way_out(make_job: Make) -> None:
    job = make_job()
    (job.path / "spec.json").write_text("")
    with pytest.raises(UserError, match=rf"spec\.json: missing or damaged; remove the job with: mla-tui rm {job.id}"):
        job.spec()


# -- forgetting


@pytest.mark.parametrize("role", ["supervisor", "trainer"])
def test_a_living_job_is_not_removed(make_job: Make, role: str) -> None:
    job = make_job(**{role: identity(os.getpid())})
    with pytest.raises(UserError, match=rf"job {job.id}: is running; stop it first: mla-tui stop {job.id}"):
        job.remove()
    assert job.state_path.exists()


@pytest.mark.parametrize("lock", ["supervisor_lock", "trainer_lock"])
def test_nor_is_one_whose_locks_are_held_where_its_pids_say_nothing(make_job: Make, lock: str) -> None:
    job = make_job(host="elsewhere", trainer=DEAD)
    held = Lock(getattr(job, lock))
    assert held.acquire()
    with pytest.raises(UserError, match="stop it first"):
        job.remove()
    held.release()
    job.remove()
    assert not job.path.exists()


def test_nor_is_one_that_is_just_being_launched(make_job: Make) -> None:
    with pytest.raises(UserError, match="is starting; stop it first"):
        make_job(phase="starting", launched=time.monotonic()).remove()


@pytest.mark.parametrize("phase", ["finished", "failed", "stopped", "running"])
def test_a_dead_job_is_forgotten(store: Store, make_job: Make, phase: str) -> None:
    job = make_job(phase=phase, supervisor=DEAD, trainer=DEAD)
    job.remove()
    assert store.ids() == []
