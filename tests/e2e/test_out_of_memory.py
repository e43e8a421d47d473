"""Tests real out-of-memory errors: runs under a limit on the address space."""

from __future__ import annotations

import re
import resource
from collections.abc import Callable

import pytest

from tests.e2e.conftest import Run, WaitFor, Workspace

LIMIT = 1300 << 20  # bytes of address space, of which torch's libraries take half
LIMIT_2 = 1600 << 20  # of each rank; DeepSpeed takes more by itself


def limited(limit: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def wide(micro: object = 64, steps: int = 6) -> tuple[str, ...]:
    """Return the settings of a run whose logits take most of its memory."""
    batch = ("model.vocab_size=4096", "model.hidden_size=64", "sequences=64", f"micro={micro}", "context=256")
    rest = ("loss=plain", f"steps={steps}", "val_every=0", "save_every=4")
    return tuple(word for text in (*batch, *rest) for word in ("-s", text))


def micros(run: Run) -> list[int]:
    return [record["micro"] for record in run.kind("step")]


def test_a_run_far_too_large_finds_a_micro_that_fits(workspace: Workspace) -> None:
    """The logits of 64 sequences take about 1 GB; the limit leaves a fraction of that."""
    done = workspace.run("launch", "-p", "nano", "--name", "run", *wide(), preexec_fn=limited(LIMIT))
    assert re.search(r"1\.\d+ GiB of host memory needed at micro 64, .*; micro (32|16) is predicted", done.stderr)
    run = workspace.find(done.stdout.strip())
    run.wait_end()
    print(micros(run), [(o["micro"], o["where"], o["wanted"], o["capacity"]) for o in run.kind("oom")])
    failed, used = [o["micro"] for o in run.kind("oom")], micros(run)
    assert failed[0] == 64 and failed == sorted(set(failed), reverse=True), "a micro that did not fit was tried again"
    assert used == sorted(used, reverse=True) and used[-1] < failed[-1]
    assert run.kind("exit")[-1]["attempt"] == 1  # recovered within the process
    # 32 does not fit. 16 nearly always does: heap fragmentation differs by 100 MB between runs (docs/log.md).
    assert used[-1] in (16, 8)
    assert [record["tokens"] for record in run.kind("step")] == [64 * 256 * n for n in range(1, 7)]


def test_what_auto_chooses_under_a_limit_runs_without_an_out_of_memory_error(workspace: Workspace) -> None:
    """The micro that is given above fails under the same limit."""
    auto = (*wide(micro="auto", steps=3), "-s", "checkpointing=auto")
    done = workspace.run("launch", "-p", "nano", "--name", "run", *auto, preexec_fn=limited(LIMIT))
    assert "needed" not in done.stderr
    run = workspace.find(done.stdout.strip())
    run.wait_end()
    assert not run.kind("oom") and len(run.kind("start")) == 1
    chosen = run.run_dir.spec()
    assert set(micros(run)) == {chosen.batch.micro} and 1 < chosen.batch.micro < 64
    assert {"batch.micro", "memory.checkpointing"} <= set(chosen.resolved)
    resumed = workspace.run("launch", "--resume", workspace.out / "run", "--name", "on", "-s", "steps=4")
    on = workspace.find(resumed.stdout.strip())
    on.wait_end()
    assert on.run_dir.spec().batch == chosen.batch and on.run_dir.spec().memory == chosen.memory


def test_a_run_that_cannot_fit_is_refused(workspace: Workspace) -> None:
    done = workspace.run("launch", "-p", "nano", *wide(), code=1, preexec_fn=limited(600 << 20))
    assert re.fullmatch(
        r"mla-tui: does not fit: 0\.\d+ GiB of host memory needed at micro 1, 0\.24 GiB there in all,.*--force\n",
        done.stderr,
    )
    assert done.stdout == "" and not (workspace.home / "runs").exists()


@pytest.mark.faults  # slow; test_ranks_out_of_memory has a shorter one in every suite
@pytest.mark.timeout(900)
@pytest.mark.parametrize("backend", ["torch", "deepspeed"])
def test_both_of_two_ranks_restart_with_a_smaller_micro(workspace: Workspace, backend: str) -> None:
    """Either may fail; rank 1 has no log and writes a marker beside the checkpoints."""
    two = ("-s", "gpus_per_node=2", "--backend", backend)
    command = ("launch", "-p", "nano", "--name", "run", *wide(micro=32), *two)
    done = workspace.run(*command, preexec_fn=limited(LIMIT_2))
    run = workspace.find(done.stdout.strip())
    run.wait_end()
    print(micros(run), [(o["micro"], o["where"], o["text"]) for o in run.kind("oom")], run.kind("exit"))
    assert run.kind("oom")
    assert {edit["by"] for edit in run.kind("edit")} == {"oom"}
    assert micros(run)[-1] < 32
    assert list(run.losses()) == list(range(1, 7))
    assert not list((workspace.out / "run").glob(".oom.*"))


@pytest.mark.faults  # test_tmux has one that asks, and is answered in the app
def test_a_run_that_asks_is_paused_until_it_is_edited(workspace: Workspace, wait_for: WaitFor) -> None:
    """With memory.oom = ask the run pauses after an out-of-memory error; an edit resumes it."""
    ask = (*wide(), "-s", "oom=ask")
    done = workspace.run("launch", "-p", "nano", "--name", "run", *ask, preexec_fn=limited(LIMIT))
    run = workspace.find(done.stdout.strip())
    status = wait_for("the pause", lambda: (now := run.status())["phase"] == "paused" and now)
    (oom,) = run.kind("oom")
    assert (oom["action"], oom["micro"]) == ("ask", 64)
    assert oom["parts"]["activations"] > 0
    assert re.match(r"out of memory in (forward|backward): change it with set", status["reason"])
    assert "micro 64 → 8" in workspace.run("set", run.id, "micro=8").stderr
    run.wait_end()
    assert set(micros(run)) == {8}


def test_a_measured_peak_calibrates_the_next_forecast(reference: Run) -> None:
    workspace = reference.workspace
    done = workspace.run("plan", "-p", "nano")
    assert re.search(r"calibrated: host ×[\d.]+ from \d+ runs? on this machine", done.stdout)
