"""Tuning: which way wins, what is kept of an interrupted one, and what it teaches the predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.memory.calibration import load_past_runs
from engine.memory.hardware import Hardware
from engine.memory.search.combinations import Combination
from engine.memory.search.search import Candidate, Search
from engine.memory.search.shortlist import shortlist
from engine.memory.search.speed import MEASURED, SpeedModel
from engine.train.measure.grid import SYNTHETIC, Cell, build_cell
from engine.train.measure.tune import PAIRS, Tuning
from engine.train.measure.tune_journal import Measurement, PlannedWay, TuneJournal
from profiles.registry import load

GB = 1 << 30
MACHINE = Hardware("a cpu", "cpu", None, None, 16 * GB, 12 * GB)
CELLS = [build_cell("cpu_demo", ["backend=torch"], {"batch.micro": micro}, synthetic=True) for micro in "8421"]
OUT_OF_MEMORY = "out of memory"


class Interrupted(BaseException):
    """As a signal: nothing but the test handles it."""


def answer(tok_s: float) -> dict[str, Any]:
    if tok_s == 0:
        return {"error": OUT_OF_MEMORY, "console": ""}
    return {"tok_s": tok_s, "peak": {"device": None, "device_reserved": None, "host": 1, "process": GB // 2}}


def tuning(home: Path, measure: Callable[[int], Mapping[str, Any]], cells: list[Cell] = CELLS) -> Tuning:
    return Tuning(cells, MACHINE, home, TuneJournal(home, cells[0].spec, MACHINE, "work"), measure)


def finish(one: Tuning) -> None:
    for number in one.left:
        one.measure_way(number)
    while one.needs_pair:
        one.measure_pair()


speeds = st.sampled_from([0.0, 90.0, 100.0, 101.0, 120.0])


@settings(deadline=None, max_examples=40)
@given(st.lists(speeds, min_size=4, max_size=4), st.lists(speeds, min_size=2 * PAIRS, max_size=2 * PAIRS), st.data())
def test_the_winner_beats_the_own_way_in_every_pair_however_often_it_is_interrupted(
    first: list[float], later: list[float], data: st.DataObject
) -> None:
    with TemporaryDirectory() as folder:
        home, done, order = Path(folder), 0, iter(later)

        def measure(number: int) -> Mapping[str, Any]:
            nonlocal done
            if data.draw(st.integers(0, 3)) == 0:
                raise Interrupted
            done += 1
            return answer(first[number] if len(one.left) else next(order, 100.0))

        for _ in range(60):
            one = tuning(home, measure)
            try:
                finish(one)
                break
            except Interrupted:
                continue
        else:
            return  # interrupted each time
        winner = one.winner()
        ran = [number for number in range(4) if first[number]]
        assert [bool(one.found(number).error) for number in range(4)] == [not tok_s for tok_s in first]
        if winner is None:
            assert not ran
            return
        assert first[winner.number] > 0
        assert len(one.pairs()) <= PAIRS
        if winner.number != 0 and first[0]:
            assert len(winner.ratios) == PAIRS and min(winner.ratios) > 1
            assert first[winner.number] == max(first)
        if not first[0]:
            assert not winner.ratios and first[winner.number] == max(first)
        # The speed that is predicted of each is now the measured one.
        model = SpeedModel(MACHINE, load_past_runs(MACHINE, home))
        assert all(model.of(CELLS[number].spec).kind == MEASURED for number in ran)
        assert model.of(CELLS[winner.number].spec).tok_s == winner.tok_s


@pytest.mark.parametrize(
    ("measured", "pairs", "won"),
    [
        ([100.0, 100.9], [], 0),  # as fast as the own way, with less precision
        ([100.0, 103.0], [(100.0, 103.0)] * PAIRS, 1),
        ([100.0, 103.0], [(100.0, 103.0), (100.0, 100.9)], 0),  # faster in each pair, but not by enough
        ([100.0, 103.0, 102.5], [(100.0, 102.5)] * PAIRS, 2),  # as fast as the fastest, with more precision
    ],
)
def test_of_ways_about_as_fast_the_one_with_more_precision_wins(
    measured: list[float], pairs: list[tuple[float, float]], won: int, tmp_path: Path
) -> None:
    """As in the search, whose rule it is."""
    ways: list[dict[str, str]] = [{}, {"train.precision": "bf16_sr"}, {"batch.micro": "4"}]
    cells = [build_cell("cpu_demo", ["backend=torch", "precision=fp32"], way, synthetic=True) for way in ways]
    answers = iter([*measured, *(tok_s for pair in pairs for tok_s in pair)])
    one = tuning(tmp_path, lambda number: answer(next(answers)), cells[: len(measured)])
    finish(one)
    winner = one.winner()
    assert winner is not None and winner.number == won and next(answers, None) is None
    assert len(winner.ratios) == len(pairs)
    assert winner.faster == (1 if one.best != 1 else None)


def test_what_was_measured_changes_the_predictions_but_not_what_is_left_to_measure(tmp_path: Path) -> None:
    spec = load("cpu_demo", ["backend=torch"])

    def begin() -> tuple[TuneJournal, list[Candidate]]:
        search, journal = Search(MACHINE, load_past_runs(MACHINE, tmp_path)), TuneJournal(tmp_path, spec, MACHINE, "")
        ways = journal.ways(spec, search) or shortlist(spec, search, 4)
        journal.begin(ways)
        return journal, ways

    def described(ways: list[Candidate]) -> list[tuple[Combination, int]]:
        return [(way.combination, way.spec.batch.micro) for way in ways]

    journal, ways = begin()
    cells = [Cell({}, way.spec, SYNTHETIC) for way in ways]
    one = Tuning(cells, MACHINE, tmp_path, journal, lambda number: answer([1e6, 1000.0][number]))
    one.measure_way(0)
    one.measure_way(1)
    search = Search(MACHINE, load_past_runs(MACHINE, tmp_path))
    assert described(shortlist(spec, search, 4)) != described(ways)
    assert described(begin()[1]) == described(ways)
    for micro, strategy in ((3, "device"), (8, "nowhere")):
        damaged = PlannedWay(replace(ways[1].combination, strategy=strategy), micro)
        journal.measured.planned[1] = damaged
        journal.add("key", Measurement(1.0))
        assert described(begin()[1]) == described(shortlist(spec, search, 4))


def test_nothing_is_measured_twice_and_a_damaged_file_is_begun_anew(tmp_path: Path) -> None:
    asked: list[int] = []

    def measure(number: int) -> Mapping[str, Any]:
        asked.append(number)
        return answer([100, 0, 50, 40][number])

    one = tuning(tmp_path, measure)
    one.measure_way(0)
    one.measure_way(1)
    again = tuning(tmp_path, measure)
    assert again.left == [2, 3] and again.found(1).error == OUT_OF_MEMORY
    finish(again)
    assert asked == [0, 1, 2, 3] and again.best == 0
    runs = load_past_runs(MACHINE, tmp_path)
    assert len(runs) == 3 and all(run.name.startswith("tune ") for run in runs)
    for text in ("", "[]", '{"ways": 3}', '{"ways": {"a": {"tok_s": "fast"}}, "pairs": []}', '{"pairs": [1]}'):
        again.journal.path.write_text(text)
        assert tuning(tmp_path, measure).left == [0, 1, 2, 3]
    again.journal.remove()
    assert not again.journal.path.exists()
