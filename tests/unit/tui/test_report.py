"""The page that ``mla-tui report`` writes: complete, small, self-contained, and safe against what runs are called."""

from __future__ import annotations

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from engine.events.metrics import BY_STEP
from engine.events.series import CAPACITY, Point
from engine.events.status import Summary
from engine.events.types import Alert, Checkpoint, Edit, Event, Exit, Oom, Start, Val
from engine.host.files import read_json, write_json
from engine.runs.store import RunStore
from tests.unit.tui.conftest import Make
from tui.app.state.comparison import LETTERS
from tui.cli.main import main
from tui.cli.report.page import page
from tui.cli.report.reported_run import MAX_INCIDENTS, ReportedRun


class Page(HTMLParser):
    """Collects tags, text and scripts; fails where elements are not closed in order."""

    VOID = frozenset({"meta"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.data: list[Any] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["script"] and self.tags[-1][1].get("type") == "application/json":
            self.data.append(json.loads(data))
        elif self.open[-1:] not in (["style"], ["script"]):
            self.text += data + "\n"


def test_a_page_of_two_runs(
    store: RunStore, make_run: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, _ = make_run("one", 40)
    two, writer = make_run("two", 60, phase="running")
    writer.write(Val(step=50, loss=2.25, bits_per_byte=0.9))
    writer.write(Edit(ok=True, changed={"micro": (8, 4)}, step=55))
    writer.write(Oom(where="forward", action="micro 4"))
    writer.write(Exit(signal="SIGKILL"))
    writer.write(
        Start(plan={"attention": "sdpa"}, device="a card", versions={"torch": "9"}, attempt=2, resumed_from=60)
    )
    writer.write(Checkpoint(ok=True, step=60))
    spec = read_json(one.path / "spec.json")
    write_json(one.path / "spec.json", {**spec, "optim": {**spec["optim"], "lr": 0.5}})
    out = tmp_path / "both.html"
    assert main(["report", "one", "two", "-o", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    text = out.read_text()
    found = Page(text)
    shown = ("A · one", "B · two", "2.2500", "micro 8 → 4", "out of memory (forward)", "SIGKILL", "a card", "0.5")
    for words in shown:
        assert words in found.text, words
    assert "checkpoint at step 60:" not in found.text  # no incident
    loss = next(chart for chart in found.data if [line["n"] for line in chart["lines"]] == ["A", "B", "B val"])
    assert loss["lines"][0]["y"][0] == "7.881" and loss["lines"][1]["x"][-1] == 60
    assert re.findall(r"https?:|\bsrc=|href=|url\(|@import|fetch\(|XMLHttp", text) == []
    titles = [tag for tag, _ in found.tags if tag == "title"]
    assert len(titles) > 3  # of marks on charts
    # Again, over the earlier one; the run goes on.
    assert main(["report", "two", "-o", str(out)]) == 0
    assert "A · one" not in out.read_text() and "rgb" not in out.read_text()
    assert two.summary().phase == "running"


def test_a_run_without_steps_has_a_page(
    store: RunStore, make_run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    make_run("one", 0, phase="failed")
    monkeypatch.chdir(tmp_path)
    before = os.listdir()
    assert main(["report", "one", "-o", "-"]) == 0
    found = Page(capfd.readouterr().out)
    assert "failed" in found.text and found.data == []
    assert os.listdir() == before  # no file named -


def test_what_is_there_is_kept(
    store: RunStore, make_run: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run("one", 3)
    (tmp_path / "notes.txt").write_text("mine")
    os.mkfifo(tmp_path / "fifo")
    before = sorted(tmp_path.rglob("*"))
    for out, why in (
        ("fifo", "is a FIFO, not a regular file; name another file, or - for standard output"),
        ("notes.txt", "is there and is no report; name another file with -o"),
        ("", "is a folder; name a file with -o"),
        ("none/page.html", "No such file or directory; name another file with -o"),
    ):
        assert main(["report", "one", "-o", str(tmp_path / out)]) == 1
        err = capsys.readouterr().err
        assert why in err and err.count("\n") == 1
    assert main(["report", "one", "two", "-o", str(tmp_path / "page.html")]) == 1
    assert "no such run" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before and (tmp_path / "notes.txt").read_text() == "mine"


HOSTILE = "</script><script>alert(1)</script>&\"'"


def long_run(letter: str, **summary: Any) -> ReportedRun:
    """A run of a million steps: every series has all its buckets."""
    points: list[Point] = [
        (256.0 * i, 1 + 1 / (i + 1), 1.123456 + 1 / (i + 1), 2 + 1 / (i + 1)) for i in range(CAPACITY)
    ]
    facts = {"id": "i", "name": "x" * 40, "phase": "finished", "step": 1 << 20, "steps": 1 << 20, "loss": 1.1}
    incidents: list[Event] = [Alert(what="slow", text="y" * 100)] * MAX_INCIDENTS
    start = Start(device="d", params=1, plan={}, versions={})
    return ReportedRun(
        letter, Summary(**{**facts, **summary}), {"a.b": 1}, dict.fromkeys(BY_STEP, points), [], start, incidents, 5
    )


@pytest.mark.parametrize("count", [1, 4])
def test_a_page_of_long_runs_is_small(count: int) -> None:
    text = page([long_run(letter) for letter in LETTERS[:count]], "1", 0.0)
    assert len(text.encode()) < 1_000_000
    assert len(Page(text).data) > 8


def test_text_of_a_run_is_no_markup() -> None:
    run = long_run("A", name=HOSTILE)
    event = Alert(what="slow", text=HOSTILE)
    hostile = ReportedRun("A", run.summary, {HOSTILE: HOSTILE}, {}, [], Start(device=HOSTILE), [event], 0)
    found = Page(page([run, hostile], HOSTILE, 0.0))
    assert [tag for tag, attrs in found.tags if tag == "script" and not attrs] == ["script"]
    assert HOSTILE in found.text


def chart_texts(text: str) -> list[list[str]]:
    """Return the labels of the y axis of each chart of a page, lowest first."""
    return [re.findall(r'text-anchor="end">([^<]*)<', svg) for svg in re.findall(r"<svg.*?</svg>", text)]


@pytest.mark.parametrize(
    ("series", "values", "labels"),
    [
        ("data_share", (0.0, 0.0004), ["0", "0.01", "0.02", "0.03", "0.04"]),  # a share of the step, in percent
        ("host_states", (9.1 * 2**30, 9.1003 * 2**30), ["9.1000", "9.1001", "9.1002", "9.1003"]),
        ("tok_s", (123_400.0, 123_430.0), ["123,400", "123,410", "123,420", "123,430"]),
        ("host_states", (0.0, 0.0), []),  # a chart of zeros says nothing
    ],
)
def test_no_two_ticks_of_an_axis_read_the_same(series: str, values: tuple[float, float], labels: list[str]) -> None:
    points: list[Point] = [(float(step), value, value, value) for step, value in enumerate(values, 1)]
    run = long_run("A")
    found = chart_texts(page([ReportedRun("A", run.summary, {}, {series: points}, [], None, [], 0)], "1", 0.0))
    assert found == ([labels] if labels else [])


def test_a_page_says_on_which_day_it_was_made_and_what_its_lines_are() -> None:
    text = Page(page([long_run("A"), long_run("B")], "1", 86400.0 * 365)).text
    assert re.search(r"mla-tui 1, 197[01]-\d\d-\d\d \d\d:\d\d", text)
    assert text.count("validation\n") == 1
