"""Tags, note and shown name of a run, through the command line and its files."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from engine.events.labels import MOST_TAGS, change_name, change_tags, read_labels
from engine.runs.store import RunStore
from tests.unit.tui.conftest import make_run, store  # noqa: F401  the fixtures
from tui.cli.main import main


def test_commands_change_an_ended_run_and_an_active_one(
    store: RunStore,  # noqa: F811
    make_run: Any,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_run("over", 3)
    make_run("live", 3, phase="running")
    for name in ("over", "live"):
        assert main(["tag", name, "moe", "sweep", "moe"]) == 0
    assert main(["tag", "over", "sweep", "--remove"]) == 0
    assert main(["note", "over", "best so far"]) == 0
    capsys.readouterr()
    assert main(["ls", "--filter", "tag:sweep"]) == 0
    assert [line.split()[-3:] for line in capsys.readouterr().out.splitlines()[1:]] == [["live", "#moe", "#sweep"]]
    assert main(["ls", "--json", "--filter", "so"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["tags"], found["note"], found["lr"]) == (["moe"], "best so far", 3e-3)
    assert main(["status", "over"]) == 0
    assert "tags          moe\nnote          best so far\n" in capsys.readouterr().out
    assert main(["compare", "over", "live"]) == 0
    assert "A: #moe best so far\nB: #moe #sweep\n" in capsys.readouterr().out
    assert main(["note", "over", ""]) == 0
    assert store.find("over").summary().note is None


@pytest.mark.parametrize(
    "command",
    [
        *(["tag", "demo", tag] for tag in ("", "two words", "a,b", "x" * 41, "esc\x1b[2J", "\u202e", "line\n")),
        ["tag", "demo", "fine", "bad tag"],
        ["tag", "demo", "absent", "--remove"],
        ["tag", "demo", *(f"t{i}" for i in range(MOST_TAGS + 1))],
        *(["note", "demo", text] for text in ("two\nlines", "bell\a", "x" * 501)),
        ["ls", "--filter", "losss<4"],
    ],
    ids=repr,
)
def test_bad_labels_are_one_line_and_change_nothing(
    command: list[str],
    store: RunStore,  # noqa: F811
    make_run: Any,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, _ = make_run("demo", 3)
    assert main(command) in (1, 2)
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error[:-1].isprintable()
    assert read_labels(run.path).tags == () and read_labels(run.path).note is None


def test_changes_at_once_are_all_kept(store: RunStore, make_run: Any) -> None:  # noqa: F811
    run, _ = make_run("demo", 3)
    threads = [threading.Thread(target=change_tags, args=(run.path, (f"t{i}",))) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(read_labels(run.path).tags) == sorted(f"t{i}" for i in range(12))


def test_a_new_name_finds_the_run_and_its_checkpoints_stay(store: RunStore, make_run: Any) -> None:  # noqa: F811
    run, _ = make_run("first", 3)
    change_name(run.path, "renamed")
    assert store.find("renamed").id == store.find("first").id == run.id
    assert (run.summary().name, run.name) == ("renamed", "first")  # models/first is the folder of its checkpoints
    other, _ = make_run("other", 3)
    change_name(other.path, "third")
    change_name(run.path, "other")  # as ls shows it; a name that ls does not show finds a run only if no other has it
    assert store.find("other").id == run.id
    change_name(run.path, "")
    assert run.summary().name == "first"


def test_foreign_labels_are_left_out(store: RunStore, make_run: Any) -> None:  # noqa: F811
    run, _ = make_run("demo", 3)
    run.path.joinpath("labels.json").write_text('{"tags": ["ok", "no\\u001b", "a b"], "note": "x\\ny", "name": "../x"}')
    summary = run.summary()
    assert (summary.tags, summary.note, summary.name) == (("ok",), None, "demo")
