"""Out of memory on one of two ranks, in each phase of a step: plain torch, and DeepSpeed with states in host memory.

The ranks are real processes, restarted as a supervisor would; the error is raised in one of them at a chosen operation
(failing_rank.py).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.events.run_dir import RunDir
from engine.host.files import write_json
from engine.host.process import Lock
from engine.preflight import resolve_spec
from profiles.registry import load
from tests.events import records as read_records
from tests.unit.train.faulty_run import FaultyRun
from tests.unit.train.tiny_runs import NANO, write_shards

REPOSITORY = Path(__file__).parents[2]
STEPS = 8
PHASES = {"forward": ("accumulate", 0.05), "backward": ("accumulate", 0.8), "optimizer": ("optimizer_step", 0.5)}


def spec(root: Path, *more: str) -> Any:
    paths = (f"root={root / 'shards'}", f"out={root / 'models'}")
    common = (f"steps={STEPS}", "save_every=2", "val_every=3", "val_sequences=16", "compile=off")
    return resolve_spec(load("cpu_demo", [*NANO, *common, *paths, *more]))


def run_until_finished(run: RunDir, *failure: str) -> list[dict[str, Any]]:
    """Start the ranks until the run has finished; return its records."""
    supervisor = Lock(run.supervisor_lock)  # held, because a trainer starts a supervisor where there is none
    assert supervisor.acquire()
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(REPOSITORY)}
    try:
        for attempt in range(1, 4):
            launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
            arguments = [str(Path(__file__).with_name("failing_rank.py")), str(run.path), str(attempt), *failure]
            done = subprocess.run([*launcher, *arguments], env=env, capture_output=True, text=True, timeout=200)
            records = read_records(run.log_path)
            if [r["phase"] for r in records if r["kind"] == "state"][-1] == "finished":
                return records
        pytest.fail(f"the run did not finish\n{done.stdout}\n{done.stderr}")
    finally:
        supervisor.release()


@pytest.mark.parametrize(
    ("backend", "where", "rank"),
    [
        ("torch", "backward", 1),  # must notify the other rank while gradients are half reduced
        *(
            pytest.param("deepspeed", where, rank, marks=pytest.mark.faults)
            for where in (*PHASES, "validation")
            for rank in (0, 1)
        ),
    ],
)
def test_one_of_two_ranks_runs_out_of_memory(tmp_path: Path, backend: str, where: str, rank: int) -> None:
    write_shards(tmp_path / "shards")
    reference = FaultyRun(spec(tmp_path), tmp_path / "reference", [], {}, [])
    reference.run_to_end()
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    two = spec(tmp_path, f"backend={backend}", "gpus_per_node=2")
    write_json(run.path / "spec.json", {**two.to_dict(), "start": {"name": "failing"}})
    method, fraction = PHASES.get(where, ("evaluate", 0.5))
    records = run_until_finished(run, str(rank), method, str(fraction))

    def of(kind: str) -> list[dict[str, Any]]:
        return [record for record in records if record["kind"] == kind]

    steps = {record["step"]: record for record in of("step")}
    reference_steps = reference.by_step("step")
    for step in reference_steps:
        batch = np.concatenate([np.load(run.path / f"batch-{one}-{step}.npy") for one in (0, 1)])
        assert np.array_equal(batch, reference.sequences[step]), f"step {step} had other sequences"
    found, expected = ({step: one[step]["loss"] for step in one} for one in (steps, reference_steps))
    assert found == pytest.approx(expected, rel=1e-5)
    assert (run.path / "failed").exists()
    if where == "validation":  # handled by that rank alone
        assert len(of("start")) == 1 and {record["micro"] for record in of("step")} == {4}
        assert [oom["action"] for oom in of("oom")] == ([] if rank else ["validate 2 at once"])
        return
    assert len(of("start")) == 2
    (oom,), (edit,) = of("oom"), of("edit")
    assert (oom["where"], oom["action"]) == (where, "micro 2")
    assert (edit["by"], edit["changed"]["micro"]) == ("oom", [4, 2])
    assert steps[STEPS]["micro"] == 2
    assert not list((tmp_path / "models" / "failing").glob(".oom.*"))
