import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui.app.state import log_buffer
from tui.app.state.log_buffer import LogBuffer, LogLine, LogPage


def entries(first: int, count: int) -> list[LogLine]:
    return [LogLine(at, 0.0, f"line {at}", "plain") for at in range(first, first + count)]


@given(st.lists(st.tuples(st.sampled_from(["add", "older", "newer", "scroll"]), st.integers(1, 40)), max_size=60))
def test_the_lines_in_view_stay_and_what_is_kept_has_no_holes_and_a_bound(does: list[tuple[str, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_buffer, "CAPACITY", 20)
        buffer = LogBuffer()
        buffer.replace(LogPage(entries(1000, 30), False, True), 0)
        newest = 1030
        for what, count in does:
            if what == "older":  # asked for by who has scrolled up to the first
                buffer.lines_below = len(buffer.lines) - 1
            elif what == "newer":
                buffer.lines_below = min(buffer.lines_below, 1)
            bottom = buffer.lines[len(buffer.lines) - buffer.lines_below - 1].offset if buffer.lines_below else None
            if what == "add":
                for entry in entries(newest, count):
                    buffer.append(entry)
                newest += count
            elif what == "older":
                buffer.prepend(LogPage(entries(buffer.lines[0].offset - count, count), False, False))
            elif what == "newer" and not buffer.at_end:
                begin = buffer.lines[-1].offset + 1
                some = entries(begin, min(count, newest - begin))
                buffer.extend(LogPage(some, False, begin + len(some) == newest))
            elif what == "scroll":
                buffer.lines_below = min(buffer.lines_below + count, len(buffer.lines) - 1)
                continue
            ats = [entry.offset for entry in buffer.lines]
            assert ats == list(range(ats[0], ats[0] + len(ats)))
            assert len(ats) <= 2 * 20 + 40 + 1
            assert not buffer.at_end or ats[-1] == newest - 1
            if bottom is not None and buffer.lines_below:
                assert buffer.lines[len(buffer.lines) - buffer.lines_below - 1].offset == bottom
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
    every = log_buffer.read_before(path, end, 1000, lambda entry: True)
    assert every.at_start and [e.text for e in every.lines] == [f"line {n}" for n in range(300) if n % 3]
    some = log_buffer.read_before(path, end, 1000, lambda entry: log_buffer.matches(entry.text, ("line", "7")))
    assert [e.text for e in some.lines] == [f"line {n}" for n in range(300) if n % 3 and "7" in str(n)]
    on = log_buffer.read_after(path, every.lines[10].offset, end, 1000, lambda entry: True)
    assert on.at_end and on.lines == every.lines[10:]
    assert log_buffer.read_after(path, end, end, 10, lambda entry: True) == LogPage([], False, True)
