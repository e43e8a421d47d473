"""The app in tmux: what it shows, and that runs continue when it ends."""

from __future__ import annotations

import json
import resource
import shutil

import pytest

from engine.host.process import start_ticks
from tests.e2e.conftest import LOSS, Run, Terminals, WaitFor, Workspace

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
STEPS = 900


def only_run(workspace: Workspace) -> Run:
    (summary,) = json.loads(workspace.run("ls", "--json").stdout)
    return workspace.find(summary["id"])


def test_a_run_outlives_the_terminal_it_was_launched_from(
    workspace: Workspace, terminals: Terminals, wait_for: WaitFor
) -> None:
    workspace.write_profile(steps=STEPS)
    terminal = terminals()
    app = terminal.open()
    terminal.wait_text("no runs yet")
    terminal.keys("n")
    terminal.wait_text("new run")
    terminal.keys("End")
    terminal.wait_text(r"mla-tui launch -p nano")
    terminal.keys("F5")
    terminal.wait_text(LOSS)
    run = only_run(workspace)
    run.wait_step(50)

    terminal.tmux("kill-server")
    wait_for("the end of the app", lambda: start_ticks(app) is None, 15)
    after = run.kind("step")[-1]["step"]
    assert after < STEPS, "the run was over before the terminal was closed; nothing was tested"
    run.wait_step(after + 50)
    assert run.status()["phase"] in ("running", "saving")

    other = terminals()
    other.open("attach")
    run.wait_end()
    first, count = other.wait_text(rf"steps 1–({STEPS}) \((\d+)\)").groups()
    assert (first, count) == (str(STEPS), str(STEPS))
    other.wait_text("finished")
    other.keys("q")
    other.wait_text("mla-tui · runs")
    other.keys("q")
    other.wait_end()


@pytest.mark.faults  # test_watchers compares readers of every kind; the test above has an app at the last step
def test_two_apps_and_a_watcher_end_on_the_same_step(workspace: Workspace, terminals: Terminals) -> None:
    run = workspace.launch("-s", f"steps={STEPS}", "-s", "sequences=4")
    watch = workspace.start("watch", run.id, "--json")
    terminal = terminals()
    terminal.open("attach", size=(120, 60))
    terminal.open("attach", run.id)
    for pane in (0, 1):
        terminal.wait_text(LOSS, pane)
    records = [json.loads(line) for line in watch.communicate(timeout=90)[0].splitlines()]
    steps = [record["step"] for record in records if record["kind"] == "step"]
    assert steps == list(range(1, STEPS + 1))
    shown = [terminal.wait_text(rf"steps 1–{steps[-1]} \((\d+)\)", pane)[1] for pane in (0, 1)]
    assert shown == [str(len(steps))] * 2


@pytest.mark.faults  # test_survival watches one, test_cut_off resumes one in the app
def test_attaching_revives_a_run_that_was_cut_off(workspace: Workspace, terminals: Terminals, reference: Run) -> None:
    run = workspace.launch()
    run.wait_step(95)
    run.kill_both()
    assert run.status()["phase"] == "cut-off"
    terminal = terminals()
    terminal.open("attach", run.id)
    run.wait_end()
    assert run.losses() == reference.losses()
    assert terminal.wait_text(r"steps 1–240 \((\d+)\)")[1] == "240"


def test_the_app_pauses_and_resumes_the_run_which_continues_after_it_quits(
    workspace: Workspace, terminals: Terminals, wait_for: WaitFor
) -> None:
    run = workspace.launch("-s", "steps=1000000", "-s", "save_every=0", "-s", "val_every=0")
    terminal = terminals()
    terminal.open("attach", run.id)
    terminal.wait_text(LOSS)
    terminal.keys("p")
    wait_for("the pause", lambda: run.phase() == "paused")
    terminal.wait_text("paused")
    terminal.keys("p")
    wait_for("the run to continue", lambda: run.phase() == "running")
    terminal.keys("C-q")
    terminal.wait_end()
    run.wait_step(run.kind("step")[-1]["step"] + 10)


def test_a_run_out_of_memory_asks_in_every_app(workspace: Workspace, terminals: Terminals) -> None:
    """An answer in one app resumes the run and closes the dialog in the other."""
    wide = ("model.vocab_size=4096", "sequences=64", "micro=64", "context=256", "loss=plain", "oom=ask", "steps=6")
    flags = [word for text in (*wide, "val_every=0", "save_every=0") for word in ("-s", text)]
    limit = 1300 << 20  # bytes of address space
    launched = workspace.run(
        *("launch", "-p", "nano", *flags), preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    )
    run = workspace.find(launched.stdout.strip())
    first, second = terminals(), terminals()
    first.open("attach", run.id)
    second.open("attach", run.id)
    for terminal in (first, second):
        terminal.wait_text(r"Out of memory in (forward|backward) at micro 64, [\d.]+ MiB short")
        terminal.wait_text(r"GiB of \d+ MiB predicted at the OOM")
        terminal.wait_text(r"micro 64→32, accum 1→2 +−")
    first.keys("8")
    first.wait_text(r"accum +8\s")
    first.keys("Enter")
    first.wait_text(r"micro 64 → 8")
    second.wait_text(r"micro 64 → 8")
    assert "Out of memory " not in second.text()
    run.wait_end()
    assert {record["micro"] for record in run.kind("step")} == {8}
