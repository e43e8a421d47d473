"""Hooks of real runs: the last one runs before the supervisor exits, whatever is killed meanwhile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.e2e.conftest import WaitFor, Workspace


def hook(workspace: Workspace, **commands: str) -> Path:
    path = workspace.profile.parents[1] / "hooks.toml"
    path.write_text("\n".join(["[on_event]", *(f"{k} = {json.dumps(v)}" for k, v in commands.items())]))
    return path


def received(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_the_finished_hook_runs_before_the_supervisor_exits(workspace: Workspace) -> None:
    out = workspace.root / "received"
    hook(workspace, finished=f"sleep 0.3; cat >> {out}; echo hook output")
    run = workspace.launch("-s", "steps=20")
    run.wait_end()
    (record,) = received(out)
    assert (record["run"], record["name"], record["phase"]) == (run.id, "run", "finished")
    assert "hook output" in run.run_dir.console_path.read_text()
    assert run.run_dir.state().hooks_at > record["at"]
    # Nothing is pending, so these start nothing.
    workspace.run("watch", run.id)
    workspace.run("resume", "--cut-off")
    assert workspace.processes() == []
    assert len(received(out)) == 1


def test_the_hook_of_a_killed_supervisor_is_run_by_the_next(workspace: Workspace, wait_for: WaitFor) -> None:
    started, out = workspace.root / "started", workspace.root / "received"
    hook(workspace, finished=f"echo >> {started}; [ $(wc -l < {started}) -gt 1 ] || sleep 600; cat >> {out}")
    run = workspace.launch("-s", "steps=20")
    wait_for("the hook", started.exists)
    run.kill("supervisor")
    for process in workspace.processes():  # the hook of the killed supervisor
        process.kill()
    assert received(out) == []
    workspace.run("watch", run.id)
    wait_for("the hook again", lambda: received(out))
    run.wait_end()
    assert [record["phase"] for record in received(out)] == ["finished"]
    assert len(run.kind("start")) == 1


def test_a_mistake_in_the_hooks_is_refused_before_anything_is_created(workspace: Workspace) -> None:
    path = hook(workspace, finishd="true")
    workspace.assert_refused(
        "launch", "-p", "nano", code=2, message=f"{path}: on_event.finishd: unknown event; did you mean finished"
    )
    workspace.assert_refused("hooks", code=2, message="did you mean finished")


def test_a_hook_can_be_tried(workspace: Workspace) -> None:
    path = hook(workspace, finished="cat", failed="exit 4")
    tried = json.loads(workspace.run("hooks", "try", "finished").stdout)
    assert (tried["event"], tried["phase"]) == ("finished", "finished")
    assert "exited with code 4" in workspace.run("hooks", "try", "failed", code=1).stderr
    assert f"{path}: on_event.nan: no command for this event" in workspace.run("hooks", "try", "nan", code=1).stderr
    assert workspace.run("hooks").stdout.splitlines() == ["finished   cat", "failed     exit 4"]
