"""Hooks of real runs: told of the end before the supervisor leaves, whatever dies meanwhile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.e2e.conftest import WaitFor, World


def hook(world: World, **commands: str) -> Path:
    path = world.profile.parents[1] / "hooks.toml"
    path.write_text("\n".join(["[on_event]", *(f"{k} = {json.dumps(v)}" for k, v in commands.items())]))
    return path


def told(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_the_end_of_a_run_is_told_before_its_supervisor_leaves(world: World) -> None:
    out = world.root / "told"
    hook(world, finished=f"sleep 0.3; cat >> {out}; echo told me")
    run = world.launch("-s", "steps=20")
    run.wait_end()
    (record,) = told(out)
    assert (record["run"], record["name"], record["phase"]) == (run.id, "run", "finished")
    assert "told me" in run.run_dir.console_path.read_text()
    assert run.run_dir.state()["hooks_at"] > record["at"]
    # Nothing is due, so whoever looks again starts nothing.
    world.run("watch", run.id)
    world.run("resume", "--cut-off")
    assert world.processes() == []
    assert len(told(out)) == 1


def test_a_supervisor_killed_within_a_hook_leaves_it_to_the_next(world: World, wait_for: WaitFor) -> None:
    began, out = world.root / "began", world.root / "told"
    hook(world, finished=f"echo >> {began}; [ $(wc -l < {began}) -gt 1 ] || sleep 600; cat >> {out}")
    run = world.launch("-s", "steps=20")
    wait_for("the hook", began.exists)
    run.kill("supervisor")
    for process in world.processes():  # the hook that nobody waits for any more
        process.kill()
    assert told(out) == []
    world.run("watch", run.id)
    wait_for("the hook again", lambda: told(out))
    run.wait_end()
    assert [record["phase"] for record in told(out)] == ["finished"]
    assert len(run.kind("start")) == 1


def test_a_mistake_in_the_hooks_is_told_before_anything_is_created(world: World) -> None:
    path = hook(world, finishd="true")
    world.refused(
        "launch", "-p", "nano", code=2, said=f"{path}: on_event.finishd: unknown event; did you mean finished"
    )
    world.refused("hooks", code=2, said="did you mean finished")


def test_a_hook_can_be_tried(world: World) -> None:
    path = hook(world, finished="cat", failed="exit 4")
    tried = json.loads(world.run("hooks", "try", "finished").stdout)
    assert (tried["event"], tried["phase"]) == ("finished", "finished")
    assert "ended with code 4" in world.run("hooks", "try", "failed", code=1).stderr
    assert f"{path}: on_event.nan: there is no such command" in world.run("hooks", "try", "nan", code=1).stderr
    assert world.run("hooks").stdout.splitlines() == ["finished   cat", "failed     exit 4"]
