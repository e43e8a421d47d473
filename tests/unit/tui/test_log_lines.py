import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui.app.state import log_lines
from tui.app.state.log_lines import Entry, LogLines, Page


def entries(first: int, count: int) -> list[Entry]:
    return [Entry(at, 0.0, f"line {at}", "plain") for at in range(first, first + count)]


@given(st.lists(st.tuples(st.sampled_from(["add", "older", "newer", "scroll"]), st.integers(1, 40)), max_size=60))
def test_the_lines_in_view_stay_and_what_is_kept_has_no_holes_and_a_bound(does: list[tuple[str, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_lines, "KEPT", 20)
        book = LogLines()
        book.put(Page(entries(1000, 30), False, True), 0)
        newest = 1030
        for what, count in does:
            if what == "older":  # asked for by who has scrolled up to the first
                book.back = len(book.entries) - 1
            elif what == "newer":
                book.back = min(book.back, 1)
            bottom = book.entries[len(book.entries) - book.back - 1].at if book.back else None
            if what == "add":
                for entry in entries(newest, count):
                    book.add(entry)
                newest += count
            elif what == "older":
                book.older(Page(entries(book.entries[0].at - count, count), False, False))
            elif what == "newer" and not book.last:
                begin = book.entries[-1].at + 1
                some = entries(begin, min(count, newest - begin))
                book.newer(Page(some, False, begin + len(some) == newest))
            elif what == "scroll":
                book.back = min(book.back + count, len(book.entries) - 1)
                continue
            ats = [entry.at for entry in book.entries]
            assert ats == list(range(ats[0], ats[0] + len(ats)))
            assert len(ats) <= 2 * 20 + 40 + 1
            assert not book.last or ats[-1] == newest - 1
            if bottom is not None and book.back:
                assert book.entries[len(book.entries) - book.back - 1].at == bottom
            elif bottom is not None:
                assert ats[-1] == bottom


def test_pages_are_read_either_way_and_hold_what_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    lines = [
        {"t": n, "kind": "log", "text": f"line {n}"} if n % 3 else {"t": n, "kind": "step", "step": n}
        for n in range(300)
    ]
    path.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
    end = path.stat().st_size
    every = log_lines.before(path, end, 1000, lambda entry: True)
    assert every.first and [e.text for e in every.entries] == [f"line {n}" for n in range(300) if n % 3]
    some = log_lines.before(path, end, 1000, lambda entry: log_lines.matches(entry.text, ("line", "7")))
    assert [e.text for e in some.entries] == [f"line {n}" for n in range(300) if n % 3 and "7" in str(n)]
    on = log_lines.behind(path, every.entries[10].at, end, 1000, lambda entry: True)
    assert on.last and on.entries == every.entries[10:]
    assert log_lines.behind(path, end, end, 10, lambda entry: True) == Page([], False, True)
