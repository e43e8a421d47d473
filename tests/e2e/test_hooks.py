"""Hooks of real runs: told of the end before the supervisor leaves, whatever dies meanwhile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.e2e.conftest import WaitFor, Workspace


def hook(workspace: Workspace, **commands: str) -> Path:
    path = workspace.profile.parents[1] / "hooks.toml"
    path.write_text("\n".join(["[on_event]", *(f"{k} = {json.dumps(v)}" for k, v in commands.items())]))
    return path


def told(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_the_end_of_a_run_is_told_before_its_supervisor_leaves(workspace: Workspace) -> None:
    out = workspace.root / "told"
    hook(workspace, finished=f"sleep 0.3; cat >> {out}; echo told me")
    run = workspace.launch("-s", "steps=20")
    run.wait_end()
    (record,) = told(out)
    assert (record["run"], record["name"], record["phase"]) == (run.id, "run", "finished")
    assert "told me" in run.run_dir.console_path.read_text()
    assert run.run_dir.state()["hooks_at"] > record["at"]
    # Nothing is due, so whoever looks again starts nothing.
    workspace.run("watch", run.id)
    workspace.run("resume", "--cut-off")
    assert workspace.processes() == []
    assert len(told(out)) == 1


def test_a_supervisor_killed_within_a_hook_leaves_it_to_the_next(workspace: Workspace, wait_for: WaitFor) -> None:
    began, out = workspace.root / "began", workspace.root / "told"
    hook(workspace, finished=f"echo >> {began}; [ $(wc -l < {began}) -gt 1 ] || sleep 600; cat >> {out}")
    run = workspace.launch("-s", "steps=20")
    wait_for("the hook", began.exists)
    run.kill("supervisor")
    for process in workspace.processes():  # the hook that nobody waits for any more
        process.kill()
    assert told(out) == []
    workspace.run("watch", run.id)
    wait_for("the hook again", lambda: told(out))
    run.wait_end()
    assert [record["phase"] for record in told(out)] == ["finished"]
    assert len(run.kind("start")) == 1


def test_a_mistake_in_the_hooks_is_told_before_anything_is_created(workspace: Workspace) -> None:
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
    assert f"{path}: on_event.nan: there is no such command" in workspace.run("hooks", "try", "nan", code=1).stderr
    assert workspace.run("hooks").stdout.splitlines() == ["finished   cat", "failed     exit 4"]
