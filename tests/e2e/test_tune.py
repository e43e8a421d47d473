"""A tune has its device for itself, and a SIGKILL leaves what it measured, and no process."""

from __future__ import annotations

import signal
from functools import partial

from engine.runs.device_locks import described, holder
from tests.e2e.conftest import Run, WaitFor, Workspace, output

TUNE = ("tune", "-p", "nano", "--ways", "2", "--seconds", "0.01")


def waits_for_a_tune(run: Run) -> bool:
    return any("waits for cpu, in use by mla-tui tune" in state["reason"] for state in run.kind("state"))


def test_a_killed_tune_frees_its_device_and_goes_on_with_what_it_had(workspace: Workspace, wait_for: WaitFor) -> None:
    temporary = workspace.root / "temporary"
    temporary.mkdir()
    workspace.env["TMPDIR"] = str(temporary)
    first = workspace.start(*TUNE)
    lines = iter(output(first).readline, "")
    next(line for line in lines if "the profile's own" in line)
    wait_for("the next to be measured", lambda: len(workspace.processes()) == 2)
    user = f"mla-tui tune (process {first.pid})"
    assert described(holder(workspace.home, "cpu") or "") == user
    warning = f"{user} measures on the same device"
    done = workspace.run("launch", "-p", "nano", code=1)
    assert warning in done.stderr and "--queue" in done.stderr and len(done.stderr.splitlines()) == 1
    assert f"cpu: is in use by {user}" in workspace.run(*TUNE, code=1).stderr
    queued = workspace.launch("--queue", "-s", "steps=5")
    wait_for("the run to wait", partial(waits_for_a_tune, queued))

    assert list(temporary.glob("mla-tui-*"))
    first.send_signal(signal.SIGKILL)
    first.wait()
    queued.wait_end()
    wait_for("the end of what was measured", lambda: not workspace.processes())
    assert not list(temporary.glob("mla-tui-*"))
    assert [path.name for path in workspace.profile.parent.iterdir()] == ["nano.toml"]

    again = workspace.start(*TUNE)
    lines = iter(output(again).readline, "")
    assert "going on: 1 of them" in next(line for line in lines if "going on" in line)
    assert "kept, the profile's own" in next(lines)
    again.send_signal(signal.SIGINT)
    _, said = again.communicate()
    assert (again.returncode, said.count("\n")) == (130, 1)
    assert said.endswith("go on with: mla-tui " + " ".join(TUNE) + "\n"), said
    assert workspace.processes() == []
