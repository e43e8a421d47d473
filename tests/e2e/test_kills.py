"""Kills client, supervisor and trainer at random moments; results and log must not show it."""

from __future__ import annotations

import os
import random
import time

import pytest

from engine.events.decode import decode
from tests.e2e.conftest import MakeWorkspace, Run, Workspace

CLIENT, SUPERVISOR, TRAINER = ROLES = ("client", "supervisor", "trainer")


def test_random_kills_leave_no_trace(workspace: Workspace, reference: Run) -> None:
    run = workspace.launch()
    disturb(workspace, run, reference.losses(), kills=6)
    assert run.weights() == reference.weights()


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_two_hundred_random_kills_leave_no_trace(make_workspace: MakeWorkspace) -> None:
    steps = 12_000
    longer = ("-s", f"steps={steps}", "-s", "save_every=100", "-s", "val_every=1000")
    undisturbed = make_workspace().launch(*longer)
    undisturbed.wait_end(timeout=600)
    workspace = make_workspace()
    run = workspace.launch(*longer)
    disturb(workspace, run, undisturbed.losses(), kills=200)
    assert run.weights(steps) == undisturbed.weights(steps)


def disturb(workspace: Workspace, run: Run, expected: dict[int, float], kills: int) -> None:
    """Kill ``kills`` times while ``run`` trains, then compare its log with the ``expected`` losses."""
    seed = int(os.environ.get("MLA_TUI_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"MLA_TUI_SEED={seed}")
    draw = random.Random(seed)
    moments = sorted(draw.randrange(1, len(expected) - 20) for _ in range(kills))
    client = workspace.start("watch", run.id, "--json")
    killed: dict[str, int] = dict.fromkeys(ROLES, 0)
    for moment in moments:
        while not run.reaches(moment):
            phase = run.status()["phase"]
            if phase == "cut-off":  # supervisor and trainer were killed at nearly the same time
                workspace.run("resume", run.id)
            elif phase == "finished":  # before the trainer noticed that its supervisor was gone
                break
        role = draw.choice(ROLES)
        time.sleep(draw.random() * 0.05)  # anywhere within a step, a save or a restart
        if role == CLIENT:
            client.kill()
            client.communicate()
            client = workspace.start("watch", run.id, "--json")
        elif process := run.process(role):  # it may be gone already, and another starting
            os.kill(process.pid, 9)
        killed[role] += 1
    print(f"killed {killed}, {run.run_dir.state().attempt} attempts")
    workspace.run("watch", run.id)
    run.wait_end()
    out, _ = client.communicate(timeout=60)

    assert run.losses() == expected  # every step of the latest attempt, bit for bit
    lines = run.run_dir.log_path.read_bytes().splitlines(keepends=True)
    assert [line for line in lines if line.strip() and decode(line) is None] == []  # none torn or interleaved
    ends = [record["attempt"] for record in run.kind("exit")]
    assert ends == list(range(1, len(ends) + 1))  # every attempt has one exit record
    assert out.splitlines()[-1] != ""
