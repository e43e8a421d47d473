"""Tests a run with the MLX backend: edited, killed, finished."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import Run, Workspace


def test_an_edited_and_killed_mlx_run_has_the_losses_of_torch(workspace: Workspace, reference: Run) -> None:
    run = workspace.launch("--backend", "mlx", "-s", "steps=100")
    run.wait_step(10)
    workspace.run("set", run.id, "micro=2")
    (edit,) = run.kind("edit")
    run.wait_step(45)
    run.kill("trainer")
    run.wait_end()

    first, again = run.kind("start")
    assert "mlx" in first["versions"] and "mlx" in again["versions"]
    assert again["resumed_from"] >= 40
    assert {r["micro"] for r in run.kind("step") if r["step"] > edit["step"]} == {2}
    steps = {attempt: {r["step"]: r["loss"] for r in run.kind("step") if r["attempt"] == attempt} for attempt in (1, 2)}
    for step in steps[1].keys() & steps[2].keys():
        assert steps[1][step] == steps[2][step]
    plain, mlx = reference.losses(), run.losses()
    assert sorted(mlx) == list(range(1, 101))
    for step in range(1, 21):
        assert mlx[step] == pytest.approx(plain[step], rel=1e-3)
    assert all(r["unified_peak"] >= r["unified_active"] > 0 for r in run.kind("step"))
