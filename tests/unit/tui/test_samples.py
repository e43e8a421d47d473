"""The samples of a run, as the command prints them and the app shows them."""

from __future__ import annotations

import contextlib
import json

import pytest

from engine.events.labels import change_name
from engine.events.log import LogWriter
from engine.events.run_dir import RunDir
from engine.events.samples import Samples
from engine.events.types import Sample, Start
from engine.runs.store import RunStore
from tests.unit.tui.conftest import Make
from tests.unit.tui.helpers import on_screen, text_of, until
from tui.app.app import MlaApp
from tui.cli.main import main


def write_samples(run: RunDir, log: LogWriter) -> None:
    """Write those of steps 2 and 4, and of a restart from step 3 that has done step 4 again."""
    for step in (2, 4):
        log.write(Sample(step=step, prompt="ab", text=f" first {step}\n\x1b[2J", tokens=8, seconds=0.5))
    with contextlib.closing(LogWriter(run.log_path, attempt=2)) as second:
        second.write(Start(resumed_from=3))
        second.write(Sample(step=4, prompt="ab", text=" again", tokens=8, seconds=0.5))
        second.write(Sample(step=4, text="no prompt here", tokens=1, seconds=0.25, cut=True))


def test_the_command_prints_what_counts_step_by_step(
    store: RunStore, make_run: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run("apple", 5, backend="mlx")
    assert main(["samples", "apple"]) == 0
    assert "apple has no samples; the mlx backend generates none" in capsys.readouterr().err
    make_run("ended", 5)
    run, log = make_run("one", 5, phase="running")
    for name, also in {"ended": "", "one": ", also mla-tui set RUN sample_every=200"}.items():
        assert main(["samples", name]) == 0
        expected = f"mla-tui: {name} has no samples; train.sample_every in the profile makes them{also}\n"
        assert capsys.readouterr().err == expected
    write_samples(run, log)
    assert main(["samples", "one"]) == 0
    assert capsys.readouterr().out == (
        "── step 2 · 8 tokens in 0.5 s\nab first 2\n\x1b[2J\n\n"  # as it is: it goes to a pipe
        "── step 4 · 8 tokens in 0.5 s\nab again\n\n"
        "── step 4 · no prompt · 1 token in 0.2 s · cut: train.sample_seconds were over\nno prompt here\n\n"
    )
    assert main(["samples", "one", "--step", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(one["step"], one["text"]) for one in found] == [(4, " again"), (4, "no prompt here")]
    assert main(["samples", "one", "--step", "3"]) == 1
    assert capsys.readouterr().err == "mla-tui: --step: 3 has no samples; the newest are of 2, 4\n"


def test_a_poll_reads_only_what_is_new(make_run: Make) -> None:
    run, log = make_run("one", 5, phase="running")
    samples = Samples(run.log_path)
    assert not samples.poll() and not samples.found
    log.write(Sample(step=2, text="x"))
    assert samples.poll() and not samples.poll()
    log.write(Start(resumed_from=None))
    assert samples.poll() and samples.steps == []


async def test_the_screen_follows_the_newest_step_and_goes_back(store: RunStore, make_run: Make) -> None:
    run, log = make_run("one", 5, phase="running")
    change_name(run.path, "best")
    app = MlaApp(store, run.id)

    def text() -> str:
        return text_of(app, "#sample-text")

    def heading() -> str:
        return on_screen(app, "Heading")

    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("T")
        await until(pilot, lambda: "mla-tui set best sample_every=200" in text() and "samples · best" in heading())
        write_samples(run, log)
        await until(pilot, lambda: "no prompt here" in text() and "step 4 · 2 of 2" in heading())
        assert "ab again" in text()
        await pilot.press("h")
        await until(pilot, lambda: "ab first 2" in text() and "step 2 · 1 of 2" in heading())
        assert "\x1b" not in text() and "\\u001b[2J" in text()
        log.write(Sample(step=6, text="newer"))
        await until(pilot, lambda: "1 of 3" in heading())
        await pilot.press("l", "l")
        await until(pilot, lambda: "newer" in text())
