"""Tests ``mla-tui bench``."""

from __future__ import annotations

import json
import signal

import pytest

from tests.e2e.conftest import DEADLINE, WaitFor, Workspace

MATMUL_KEYS = ("matmul_peak_flop_s", "matmul_peak_fraction")
KEYS = ("error", "tok_s", "step_s", "split_s", "peak", "warmup_s", *MATMUL_KEYS, "data", "plan")


def test_a_grid_prints_json_and_leaves_no_files(workspace: Workspace) -> None:
    before = sorted(workspace.root.rglob("*"))
    done = workspace.run("bench", "-p", "nano", "--grid", "micro=2,8", "--steps", "2", "--json")
    first, second = json.loads(done.stdout)
    assert done.stderr == ""  # no progress bar without a terminal
    assert (first["changes"], second["changes"]) == ({"micro": "2"}, {"micro": "8"})
    assert (first["micro"], first["accum"], second["micro"], second["accum"]) == (2, 4, 8, 1)
    for result in (first, second):
        assert {key for key in KEYS if key in result} == set(KEYS) - {"error"}
        assert result["data"] == "shards"
    assert sorted(workspace.root.rglob("*")) == before
    assert workspace.processes() == []


@pytest.mark.faults  # for its length; the grid above has the same results as JSON
def test_the_table_fits_a_terminal_and_names_the_keys_of_the_grid(workspace: Workspace) -> None:
    options = ("--grid", "micro=2", "--grid", "memory.checkpointing=none", "--grid", "train.precision=fp32")
    out = workspace.run("bench", "-p", "nano", "-s", "data.root=nowhere", *options, "--steps", "1").stdout
    lines = out.splitlines()
    assert max(map(len, lines)) <= 79
    assert lines[0].split()[:3] == ["micro", "checkpointing", "precision"]
    assert "random tokens" in out


def test_a_mistake_in_a_later_cell_is_reported_before_the_first_is_measured(workspace: Workspace) -> None:
    workspace.assert_refused("bench", "-p", "nano", "--grid", "micro=2,3", code=2, message="micro: 3")
    workspace.assert_refused("bench", "-p", "nano", "--grid", "mirco=2", code=2, message="did you mean batch.micro?")
    workspace.assert_refused("bench", "-p", "nano", "--steps", "0", code=2, message="--steps: 0 must be at least 1")
    workspace.assert_refused("bench", "-p", "nano", "-s", "context=30000", code=1, message="--synthetic")


def test_an_interrupted_bench_prints_its_results_so_far(workspace: Workspace, wait_for: WaitFor) -> None:
    bench = workspace.start("bench", "-p", "nano", "--grid", "seed=1,2", "--seconds", "600", "--json")
    wait_for(
        "the measuring process", lambda: any("engine.train.measure.bench" in p.cmdline() for p in workspace.processes())
    )
    bench.send_signal(signal.SIGINT)
    out, err = bench.communicate(timeout=DEADLINE)
    assert (bench.returncode, json.loads(out)) == (130, [])
    assert err == "mla-tui: stopped; 0 of 2 measured\n"
    wait_for("the measuring process to be gone", lambda: workspace.processes() == [])
