"""A device lock lasts as long as any process that shares it, and waiting runs get it in order of age."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from engine.host.process import LOCK_FDS_ENV, process_identity
from engine.runs.device_locks import DeviceLocks, check_free, described, devices_of, holder, process_of, tune_name
from profiles import registry
from profiles.errors import UserError
from tests.unit import fake_nvml
from tests.unit.fake_nvml import Card

HOLD = "import sys, time; print('held', flush=True); sys.stdin.read()"


def test_a_lock_outlives_the_process_that_acquired_it(tmp_path: Path) -> None:
    locks = DeviceLocks(tmp_path, ["cpu"])
    assert locks.acquire("first") is None
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=locks.fds
    )
    assert child.stdout is not None
    child.stdout.readline()
    locks.release()
    assert holder(tmp_path, "cpu") == "first"
    assert DeviceLocks(tmp_path, ["cpu"]).acquire("second") == ("cpu", "first")
    child.communicate()
    assert holder(tmp_path, "cpu") is None


def test_a_disk_that_refuses_the_lock_is_tried_again_and_one_that_refuses_the_name_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "devices").touch()
    locks = DeviceLocks(tmp_path, ["cpu"])
    device, why = locks.waits_for("first") or ("", "")
    assert device == "cpu" and why.startswith("cannot lock cpu, and tries again: ") and "devices" in why
    (tmp_path / "devices").unlink()

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fail)
        assert locks.waits_for("first") is None
    assert DeviceLocks(tmp_path, ["cpu"]).waits_for("second") == ("cpu", "waits for cpu, in use by run unknown")
    locks.release()


def test_an_inherited_lock_is_recognized_by_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locks = DeviceLocks(tmp_path, ["cpu", "mlx"])
    assert locks.acquire("run") is None
    with open(tmp_path / "other", "w") as other:
        monkeypatch.setenv(LOCK_FDS_ENV, f"{locks.env[LOCK_FDS_ENV]},{other.fileno()},999999,x")
        heir = DeviceLocks(tmp_path, ["cpu", "mlx"])
        assert set(heir.fds) == set(locks.fds)
        assert heir.acquire("run") is None


def test_two_devices_are_locked_together_or_not_at_all(tmp_path: Path) -> None:
    one, both = DeviceLocks(tmp_path, ["b"]), DeviceLocks(tmp_path, ["a", "b"])
    assert one.acquire("one") is None
    assert both.acquire("both") == ("b", "one")
    assert holder(tmp_path, "a") is None
    one.release()
    assert both.acquire("both") is None


def test_the_run_that_waits_longest_is_next(tmp_path: Path) -> None:
    first, second, third, late = (DeviceLocks(tmp_path, ["cpu"]) for _ in range(4))
    assert first.acquire("1") is None
    assert third.acquire("3") == ("cpu", "1")
    assert second.acquire("2") == ("cpu", "1")
    first.release()
    assert third.acquire("3") == ("cpu", "2")
    assert late.acquire("4") == ("cpu", "2")
    assert second.acquire("2") is None
    assert late.acquire("4") == ("cpu", "2")
    second.release()
    third.release()  # stopped while waiting
    assert late.acquire("4") is None
    late.release()
    assert [path.name for path in (tmp_path / "devices").iterdir()] == ["cpu.lock"]


def test_a_run_that_died_waiting_does_not_block_the_queue(tmp_path: Path) -> None:
    (tmp_path / "devices").mkdir()
    stale = tmp_path / "devices" / "cpu.wait.1"
    stale.touch()
    assert DeviceLocks(tmp_path, ["cpu"]).acquire("2") is None
    assert not stale.exists()


def test_a_device_in_use_is_named_with_the_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    spec = registry.load("cpu_demo")
    assert devices_of(spec) == ["cpu"]
    check_free(tmp_path, spec)
    locks = DeviceLocks(tmp_path, ["cpu"])
    locks.acquire("20261125-1-x")
    with pytest.raises(UserError, match=r"cpu: is in use by run 20261125-1-x; wait for it with --queue"):
        check_free(tmp_path, spec)


@pytest.mark.parametrize(
    ("seen", "where", "known"),
    [
        ({}, "(process {pid})", True),
        ({"namespace": 1}, "in another container (process {pid} there)", False),
        ({"boot": "another"}, "on another machine (process {pid} there)", False),
    ],
    ids=["here", "container", "machine"],
)
def test_a_tune_is_a_process_only_where_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: dict[str, Any], where: str, known: bool
) -> None:
    """Elsewhere its pid is that of another process, whose memory it does not free, but its lock holds."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    tune = tune_name(replace(process_identity(os.getpid()), **seen))
    locks = DeviceLocks(tmp_path, ["cpu"])
    assert locks.acquire(tune) is None
    user = f"mla-tui tune {where.format(pid=os.getpid())}"
    assert described(tune) == user
    with pytest.raises(UserError, match=f"^{re.escape(user)} measures on the same device"):
        check_free(tmp_path, registry.load("cpu_demo", ["backend=torch"]))
    assert process_of(tmp_path, tune) == (os.getpid() if known else None)
    locks.release()


def test_gpus_are_locked_by_their_uuids(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvml.install(monkeypatch, [Card(f"GPU-{index}") for index in range(4)])
    spec = registry.load("cpu_demo", ["gpus_per_node=2", "micro=4"])
    assert devices_of(spec) == ["GPU-0", "GPU-1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1,0")
    assert devices_of(spec) == ["GPU-3", "GPU-1"]
