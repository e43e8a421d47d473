"""Disks that are full, fill up during a run, or are read-only."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from profiles.registry import load
from tests.e2e.attack import Attacker
from tests.e2e.conftest import Run, WaitFor, Workspace, write_tokenizer


class Disk(NamedTuple):
    path: Path

    def remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.path)], check=True)

    def fill(self) -> Path:
        """Leave almost no free space."""
        filler = self.path / "filler"
        with open(filler, "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                return filler


MakeDisk = Callable[[Path, int], Disk]


@pytest.fixture
def make_disk(workspace: Workspace) -> Iterator[MakeDisk]:
    """Mounts small disks where they are needed."""
    mounted: list[Path] = []

    def make(path: Path, size: int) -> Disk:
        path.mkdir(mode=0o700)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(path)]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("mounting a small disk takes root and the right to mount")
        mounted.append(path)
        return Disk(path)

    yield make
    workspace.close()
    for path in mounted:
        subprocess.run(["umount", str(path)], check=True)


@pytest.fixture
def disk(workspace: Workspace, make_disk: MakeDisk) -> Disk:
    """The disk of the checkpoints, with space for four of them."""
    return make_disk(workspace.out, load(str(workspace.profile)).model.config.params * 12 * 4)


@pytest.mark.parametrize("command", ["launch", "train"])
def test_a_full_disk_is_refused_before_anything_is_created(workspace: Workspace, disk: Disk, command: str) -> None:
    disk.fill()
    workspace.assert_refused(command, "-p", "nano", "--name", "run", code=1, message="MB free")


@pytest.mark.parametrize("command", ["launch", "train"])
def test_a_read_only_disk_is_refused_before_anything_is_created(workspace: Workspace, disk: Disk, command: str) -> None:
    disk.remount("ro")
    workspace.assert_refused(command, "-p", "nano", "--name", "run", code=1, message="not writable")


def test_a_pack_says_early_that_the_disk_is_too_small(workspace: Workspace, make_disk: MakeDisk) -> None:
    """Standard input without an end is refused before it fills the disk, and leaves nothing there."""
    disk = make_disk(workspace.root / "disk", 24 << 20)
    words = ("--stdin", "jsonl", "--tokenizer", workspace.data / "phase1", "--eot", "!", "--out", disk.path / "shards")
    write_tokenizer(workspace.data)
    with subprocess.Popen(["yes", '{"text": "endless"}'], stdout=subprocess.PIPE) as endless:
        said = workspace.run("data", "pack", "-", *words, code=1, stdin=endless.stdout).stderr
        endless.kill()
    assert re.fullmatch(
        r"mla-tui: -: 17 MB of standard input were read, and of the 8 MB free on the disk of \S+/shards"
        r" packing them and other programs need 10 MB: nothing was kept; name files instead of -, .*\n",
        said,
    ), said
    assert not list(disk.path.iterdir())
    rows = workspace.root / "rows.jsonl"
    rows.write_text("".join(f'{{"text": "{number} {"word " * 900}"}}\n' for number in range(5000)))
    note, fault = workspace.run("data", "pack", rows, *words, code=1).stderr.splitlines()
    assert re.match(r"mla-tui: \S+/shards: the rest will take about \d\d MB, and \d+ MB are free: free some", note)
    assert fault.endswith(
        "No space left on device: free some space or repair it; what is finished is kept, and the same"
        " command goes on from there"
    )


def test_a_disk_that_fills_costs_a_checkpoint_and_not_the_run(
    workspace: Workspace, disk: Disk, wait_for: WaitFor, reference: Run
) -> None:
    run = workspace.launch()
    wait_for("the first checkpoint", lambda: run.kind("checkpoint"))
    filler = disk.fill()
    failed = wait_for("a failed one", lambda: [c for c in run.kind("checkpoint") if not c["ok"]])[0]
    assert "No space" in failed["why"]
    before = wait_for("the next step", lambda: [s for s in run.kind("step") if s["step"] > failed["step"]])
    assert before
    kept = (disk.path / "run" / "latest").read_text().strip()
    assert (disk.path / "run" / kept / "manifest.json").is_file()
    assert not [p for p in (disk.path / "run").iterdir() if p.name.startswith(".ckpt")]
    filler.unlink()
    run.wait_end()
    assert run.kind("checkpoint")[-1]["ok"]
    assert run.losses() == reference.losses()
    assert run.weights() == reference.weights()


def test_checkpoints_that_vanish_under_a_run_are_named_and_none_is_written_below_a_mount_point(
    workspace: Workspace, make_disk: MakeDisk, wait_for: WaitFor, reference: Run
) -> None:
    """The disk goes while the run trains, and comes back; then the folder is moved away."""
    disk = make_disk(workspace.root / "disk", 8 << 20)
    workspace.out.mkdir()
    mount = ["mount", "--bind", str(disk.path), str(workspace.out)]
    subprocess.run(mount, check=True)
    run, folder = workspace.launch("-s", "save_every=20"), workspace.out / "run"
    try:
        wait_for("the first checkpoint", lambda: run.kind("checkpoint"))
    finally:
        subprocess.run(["umount", "--lazy", workspace.out], check=True)
    failed = wait_for("a failed one", lambda: [c for c in run.kind("checkpoint") if not c["ok"]])[-1]
    assert failed["why"] == (
        f"{folder}: the disk with the checkpoints of this run is not mounted; mount it again, or make this folder, and"
        " the next checkpoint is written there"
    )
    assert not list(workspace.out.iterdir())
    subprocess.run(mount, check=True)
    try:
        assert (folder / "ckpt_step_20").is_dir()
        wait_for("one on the disk", lambda: run.kind("checkpoint")[-1]["ok"])
        folder.rename(workspace.out / "moved")
        run.wait_end()
        assert [alert["text"] for alert in run.kind("alert") if alert["what"] == "checkpoint"] == [
            f"{folder}: the earlier checkpoints of this run were moved or deleted; this one is in a new folder"
        ]
        assert run.losses() == reference.losses() and run.weights() == reference.weights()
    finally:
        workspace.close()
        subprocess.run(["umount", workspace.out], check=True)


def test_a_run_whose_last_checkpoint_fails_has_not_finished(
    workspace: Workspace, disk: Disk, wait_for: WaitFor
) -> None:
    run = workspace.launch("-s", "save_every=0")
    run.wait_step(1)
    disk.fill()
    status = run.wait_end("failed")
    assert "last checkpoint" in status["reason"]
    assert status["step"] == 240


def test_a_launch_without_space_for_its_log_is_refused(workspace: Workspace, make_disk: MakeDisk) -> None:
    """The run would be created, and neither its supervisor nor its trainer could start."""
    make_disk(workspace.home, 48 << 10)
    said = workspace.run("launch", "-p", "nano", "--name", "run", code=1).stderr
    assert re.search(r"runs: cannot create a run: No space left on device; [^\n]+\n$", said), said
    assert not workspace.processes() and not list((workspace.home / "runs").iterdir())


def test_killed_on_a_full_disk_a_run_goes_on_once_there_is_space(
    workspace: Workspace, make_disk: MakeDisk, wait_for: WaitFor, reference: Run
) -> None:
    home = make_disk(workspace.home, 1 << 20)
    run = workspace.launch()
    run.wait_step(20)
    first = run.pid("supervisor")
    filler = home.fill()
    os.kill(first, signal.SIGKILL)

    def another() -> bool:
        try:
            client = Attacker(run.run_dir.socket_path)
            pid = int(client.hello()["pid"])
        except (OSError, KeyError):
            return False
        client.close()
        return pid != first

    wait_for("another supervisor, which cannot even write its identity", another)
    filler.unlink()
    run.wait_step(60)
    assert [record["step"] for record in run.kind("step")][:60] == list(range(1, 61))
    filler = home.fill()
    os.kill(run.pid("trainer"), signal.SIGKILL)
    # The supervisor may have had room for its state, and says then that it waits.
    status = wait_for("the reason", lambda: (seen := run.status())["phase"] != "running" and seen)
    assert status["phase"] in ("recovering", "needs-attention")
    assert status["reason"] == f"{home.path}: the disk is full; the log of this run goes on when there is space"
    filler.unlink()
    run.wait_end()
    assert run.losses().items() <= reference.losses().items(), "only what was done on the full disk may be missing"
    assert run.weights() == reference.weights()


def test_a_full_disk_under_the_log_delays_nothing_and_loses_nothing(
    workspace: Workspace, make_disk: MakeDisk, wait_for: WaitFor, reference: Run
) -> None:
    home = make_disk(workspace.home, 1 << 20)
    run = workspace.launch()
    run.wait_step(50)
    filler = home.fill()
    wait_for("a later checkpoint", lambda: (workspace.out / "run" / "ckpt_step_160").is_dir())
    assert run.kind("step")[-1]["step"] < 160, "the log still had free space, so this tested nothing"
    filler.unlink()
    run.wait_end()
    assert [record["step"] for record in run.kind("step")] == list(range(1, 241))
    assert run.losses() == reference.losses()


def test_a_read_only_state_directory_is_read_and_not_written(
    workspace: Workspace, make_disk: MakeDisk, reference: Run
) -> None:
    home = make_disk(workspace.home, 4 << 20)
    ended = reference.copy_to(workspace)
    cut = workspace.cut_off_run("cut")
    home.remount("ro")
    assert [run_dir["phase"] for run_dir in json.loads(workspace.run("ls", "--json").stdout)] == ["cut-off", "finished"]
    assert "step 240/240" in workspace.run("watch", ended.id, "--no-follow").stdout
    for command in (("launch", "-p", "nano", "--name", "new"), ("resume", cut.id), ("rm", ended.id)):
        done = workspace.run(*command, code=1)
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert "Read-only" in done.stderr or "cannot" in done.stderr
    assert workspace.processes() == []
    home.remount("rw")
    workspace.run("resume", cut.id)
    cut.wait_step(1, attempt=2)
    workspace.run("stop", cut.id, "--kill")
    cut.wait_end("stopped")


@pytest.mark.faults  # a disk that is full earlier in the run is in the suite
def test_a_run_that_ends_on_a_full_disk_waits_to_log_its_last_steps(
    workspace: Workspace, make_disk: MakeDisk, wait_for: WaitFor, reference: Run
) -> None:
    home = make_disk(workspace.home, 1 << 20)
    run = workspace.launch()
    run.wait_step(20)
    filler = home.fill()
    wait_for(
        "the last checkpoint, on another disk", lambda: (workspace.out / run.run_dir.name / "ckpt_step_240").is_dir()
    )
    assert max(run.losses()) < 240
    time.sleep(3)  # it has nothing left to do; only that it has not ended shows that it waits
    assert run.process("trainer") is not None
    filler.unlink()
    run.wait_end()
    assert run.losses() == reference.losses()
