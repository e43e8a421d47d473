"""The rows of the ranks in the monitor."""

from __future__ import annotations

from typing import Any

from engine.events.types import RankStats, Step
from engine.runs.store import RunStore
from tests.unit.tui.conftest import step_record
from tests.unit.tui.helpers import on_screen, until
from tui.app.app import MlaApp
from tui.app.widgets.rank_rows import RankRows

GIB = 1 << 30


def stats(step: int, ranks: int) -> RankStats:
    """Return what ``ranks`` ranks measured; each is slower than the one before and waits longer for data."""
    numbers = range(ranks)
    return RankStats(
        step=step,
        memory=[(n + 1) * GIB for n in numbers],
        tok_s=[2000.0 - n for n in numbers],
        data_s=[0.5 * n for n in numbers],
    )


async def test_each_rank_has_a_place_and_of_many_the_slowest(store: RunStore, make_run: Any) -> None:
    run, log = make_run("demo", 5, phase="running")
    app = MlaApp(store, run.id)
    async with app.run_test(size=(110, 24)) as pilot:
        await until(pilot, lambda: "(5)" in on_screen(app, "#pane-1"))
        assert not app.screen.query_one(RankRows).display
        log.write(stats(6, 2))
        await until(pilot, lambda: "rank 1" in on_screen(app, RankRows))
        (line,) = on_screen(app, RankRows).splitlines()
        assert line.split()[:7] == ["rank", "0", "1.00", "GiB", "2000", "tok/s", "data"]
        assert "rank 1 2.00 GiB  1999 tok/s data 0.50 s" in line
        log.write(RankStats(step=7, memory=[GIB], tok_s=[1.0, 1.0], data_s=[]))  # damaged: not shown
        log.write(stats(8, 64))
        log.write(Step(**step_record(9)))
        await until(pilot, lambda: "rank 63" in on_screen(app, RankRows))
        lines = on_screen(app, RankRows).splitlines()
        assert len(lines) == 3 and lines[0].startswith(" the slowest 5 of 64 ranks")
        assert all(f"rank {n}" in on_screen(app, RankRows) for n in range(59, 64))


async def test_who_opens_a_run_sees_its_ranks_at_once(store: RunStore, make_run: Any) -> None:
    run, log = make_run("demo", 5, phase="finished")
    log.write(stats(5, 2))
    log.write(stats(7, 3))
    for number in range(8, 40):
        log.write(Step(**step_record(number)))
    app = MlaApp(store, run.id)
    async with app.run_test(size=(160, 48)) as pilot:
        await until(pilot, lambda: "rank 2" in on_screen(app, RankRows))
        await pilot.resize_terminal(60, 20)  # two lines, so the slowest two
        await until(pilot, lambda: "rank 1 of 3" in on_screen(app, RankRows))
        assert "rank 2 of 3" in on_screen(app, RankRows) and "rank 0" not in on_screen(app, RankRows)
