"""What doctor finds on this machine, and on others from what they would show it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from engine.checks import doctor, finding, libraries, logout, machine, state_dir, systemd
from engine.events.run_dir import RunDir
from engine.events.status import Launch, RunStatus
from engine.host import private_dirs
from engine.host.files import write_json
from engine.host.process import boot_id, host_name, process_identity
from engine.host.struct_json import to_dict
from engine.host.version import VERSION
from engine.runs.store import RunStore
from profiles import registry


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunStore:
    monkeypatch.setenv("MLA_TUI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return RunStore()


def create(store: RunStore, **facts: Any) -> RunDir:
    usual: dict[str, Any] = {"phase": "running", "host": host_name(), "boot": boot_id(), "version": "0.0.1"}
    return store.create(registry.load("cpu_demo"), Launch(), RunStatus(**{**usual, **facts}))


def levels(findings: object) -> list[str]:
    return [found.level for found in findings]  # type: ignore[attr-defined]


def test_every_check_has_a_complete_finding_here(store: RunStore) -> None:
    findings = doctor.run_checks(store)
    assert {"lingering", "state directory", "permissions", "free space", "hooks", "tmux", "RAM", "torch"} <= {
        found.check for found in findings
    }
    for found in findings:
        assert found.level in ("ok", "warn", "error")
        assert found.message and "\n" not in found.message + found.fix
        assert found.level == "ok" or found.fix, found
        assert "check failed" not in found.message
    assert not store.home.exists()  # checking creates nothing


def test_a_check_that_raises_is_a_warning_and_the_rest_are_run(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(store: RunStore) -> list[finding.Finding]:
        raise ZeroDivisionError("no")

    monkeypatch.setattr(doctor, "CHECKS", (broken, state_dir.free_space))
    first, second = doctor.run_checks(store)
    assert (first.level, first.message) == ("warn", "check failed: ZeroDivisionError: no")
    assert second.check == "free space"


def test_it_imports_no_torch_and_nothing_else_that_is_slow(store: RunStore) -> None:
    script = (
        "import sys; from tui.cli.main import main; main(['doctor', '--json']);"
        "print([m for m in ('torch', 'numpy', 'mlx', 'deepspeed', 'textual') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() == "[]"
    assert {"level", "check", "message", "fix"} == set(json.loads(done.stdout)[0])


def test_the_exit_status_is_1_where_there_is_an_error(store: RunStore) -> None:
    argv = [sys.executable, "-m", "tui.cli", "doctor"]
    assert subprocess.run(argv, capture_output=True, timeout=60).returncode == 0
    store.home.symlink_to(store.home.parent)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, "")
    assert "error permissions" in done.stdout
    assert "→ set MLA_TUI_HOME to a directory of your own" in done.stdout


# -- logind


@pytest.mark.parametrize(
    ("files", "kills"),
    [
        ({}, None),
        ({"etc/systemd/logind.conf": "[Login]\n#KillUserProcesses=yes\n"}, None),
        ({"etc/systemd/logind.conf": "[Login]\nKillUserProcesses=yes\n"}, True),
        ({"usr/lib/systemd/logind.conf": "[Login]\nKillUserProcesses = no\n"}, False),
        (
            {
                "usr/lib/systemd/logind.conf": "[Login]\nKillUserProcesses=yes\n",
                "etc/systemd/logind.conf": "[Login]\nKillUserProcesses=no\n",
            },
            False,
        ),
        (  # a drop-in overrides every main file, and the last name wins
            {
                "etc/systemd/logind.conf": "[Login]\nKillUserProcesses=no\n",
                "usr/lib/systemd/logind.conf.d/50-a.conf": "[Login]\nKillUserProcesses=no\n",
                "etc/systemd/logind.conf.d/10-b.conf": "[Login]\nKillUserProcesses=no\n",
                "run/systemd/logind.conf.d/60-c.conf": "[Login]\nKillUserProcesses=true\n",
            },
            True,
        ),
        (  # /etc masks the drop-in of the same name
            {
                "usr/lib/systemd/logind.conf.d/50-a.conf": "[Login]\nKillUserProcesses=yes\n",
                "etc/systemd/logind.conf.d/50-a.conf": "",
            },
            None,
        ),
    ],
)
def test_kill_user_processes_is_read_as_logind_reads_it(tmp_path: Path, files: dict[str, str], kills: object) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert logout.read_kill_setting(tmp_path) is kills


def test_lingering_is_read_from_a_file(tmp_path: Path) -> None:
    assert not systemd.lingers(tmp_path)
    folder = tmp_path / "var/lib/systemd/linger"
    folder.mkdir(parents=True)
    (folder / private_dirs.user_name(os.getuid())).touch()
    assert systemd.lingers(tmp_path)


# -- the state directory

MOUNTINFO = """22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 27 0:40 / /home rw shared:1 - nfs4 server:/home rw,vers=4.2
31 30 8:1 / /home/me/fast rw - xfs /dev/nvme0n1 rw
32 27 0:41 / /mnt/two\\040words rw - fuse.sshfs me@there: rw
33 27 0:42 / /mnt/over rw - ext4 /dev/sdb rw
34 33 0:43 / /mnt/over rw - tmpfs tmpfs rw
"""
MAC = """/dev/disk3s1s1 on / (apfs, sealed, local, read-only, journaled)
/dev/disk3s5 on /System/Volumes/Data (apfs, local, journaled)
//me@server/share on /Volumes/share on (smbfs, nodev, nosuid, mounted by me)
"""


@pytest.mark.parametrize(
    ("path", "mounts", "kind"),
    [
        ("/var/x", MOUNTINFO, "ext4"),
        ("/home/me/x", MOUNTINFO, "nfs4"),
        ("/homely", MOUNTINFO, "ext4"),
        ("/home/me/fast/x", MOUNTINFO, "xfs"),
        ("/mnt/two words/x", MOUNTINFO, "fuse.sshfs"),
        ("/mnt/over", MOUNTINFO, "tmpfs"),
        ("/Volumes/share on/x", MAC, "smbfs"),
        ("/Users/me", MAC, "apfs"),
    ],
)
def test_the_file_system_is_that_of_the_nearest_mount(path: str, mounts: str, kind: str) -> None:
    assert state_dir.file_system_of(Path(path), mounts) == kind
    assert bool(state_dir.NETWORK.search(kind)) == (kind in ("nfs4", "fuse.sshfs", "smbfs"))


def test_a_state_directory_in_memory_is_a_warning(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "home", Path("/dev/shm/mla-tui"))
    if state_dir.file_system_of(Path("/dev/shm")) == "tmpfs":
        assert levels(state_dir.file_system(store)) == ["warn"]


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root, to give a folder away")
def test_the_home_of_another_user_is_named(store: RunStore) -> None:
    create(store)
    os.chown(store.home, 65534, 65534)
    without_rights = ("setpriv", "--inh-caps=-all", "--bounding-set=-all")
    argv = (*without_rights, sys.executable, "-P", "-m", "mla_tui", "doctor", "--json")
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert "check failed" not in done.stdout and "belongs to nobody, not to you" in done.stdout, done.stdout


def test_permissions(store: RunStore) -> None:
    run = create(store)
    assert levels(state_dir.permissions(store)) == ["ok"]
    store.runs.chmod(0o755)
    (readable,) = state_dir.permissions(store)
    assert (readable.level, readable.fix) == ("warn", f"chmod 700 {store.runs}")
    os.rename(run.path, store.home / "away")
    run.path.symlink_to(store.home / "away")
    (linked,) = state_dir.permissions(store)
    assert linked.level == "error"
    assert linked.message.startswith(f"{run.path}: is a symbolic link")


def test_a_run_from_the_future_shows_that_the_clock_was_set_back(store: RunStore) -> None:
    run = create(store)
    assert list(state_dir.clock(store)) == []
    ahead = time.strftime("%Y%m%d-%H%M%S", time.gmtime(time.time() + 86400))
    os.rename(run.path, store.runs / f"{ahead}-cpu_demo")
    (found,) = state_dir.clock(store)
    assert found.level == "warn" and found.fix
    assert ahead in found.message


def test_an_active_run_of_another_version_is_named(store: RunStore) -> None:
    run = create(store, trainer=process_identity(os.getpid()))
    create(store, phase="finished")
    (found,) = state_dir.versions(store)
    assert found.level == "warn"
    assert run.id in found.message and "0.0.1" in found.message
    write_json(run.state_path, {**to_dict(run.state()), "version": VERSION})
    assert list(state_dir.versions(store)) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[on_event]\nfinished = 'true'", ["ok"]),
        ("[on_event]\nfinished = 'no-such-program-here x'", ["warn"]),
        ("[on_event]\nfinished = 'for a in b; do true; done'", ["ok"]),
        ("[on_event]\nfinishd = 'true'", ["error"]),
        ("[on_event", ["error"]),
    ],
)
def test_hooks(store: RunStore, tmp_path: Path, text: str, found: list[str]) -> None:
    assert levels(state_dir.hooks_file(store)) == ["ok"]
    path = tmp_path / "config" / "mla-tui" / "hooks.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    path.chmod(0o600)
    assert levels(state_dir.hooks_file(store)) == found
    path.chmod(0o622)
    assert "error" in levels(state_dir.hooks_file(store))


def test_little_free_space_and_little_memory(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    assert levels(state_dir.free_space(store)) == ["ok"]
    monkeypatch.setattr(state_dir, "LOW_SPACE", 1 << 62)
    assert levels(state_dir.free_space(store)) == ["warn"]
    monkeypatch.setattr(state_dir, "NO_SPACE", 1 << 62)
    assert levels(state_dir.free_space(store)) == ["error"]
    monkeypatch.setattr(machine, "LOW_RAM", 1 << 62)
    assert next(machine.memory(store)).level == "error"


def test_programs_that_wait_for_the_processors(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "BUSY", float("inf"))
    assert levels(machine.load(store)) == ["ok"]
    monkeypatch.setattr(machine, "BUSY", -1.0)
    (found,) = machine.load(store)
    assert found.level == "warn" and re.fullmatch(r"load \d+\.\d on \d+ cores?", found.message)


def test_a_missing_torch_is_an_error_and_a_missing_extra_is_not(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libraries, "installed_version", lambda package: None)
    assert "error" in levels(libraries.python_and_torch(store))
    monkeypatch.setattr(libraries, "deepspeed_problem", lambda: "deepspeed is not installed; install it")
    assert "error" not in levels(libraries.backends(store))
