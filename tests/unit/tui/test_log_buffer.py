from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.events.types import Log, Memory, Step
from engine.host.struct_json import encode
from tui.app.state import log_buffer
from tui.app.state.log_buffer import LogBuffer, LogLine, LogPage


def lines_at(first: int, count: int) -> list[LogLine]:
    return [LogLine(offset, 0.0, f"line {offset}", "plain") for offset in range(first, first + count)]


@given(st.lists(st.tuples(st.sampled_from(["append", "prepend", "extend", "scroll"]), st.integers(1, 40)), max_size=60))
def test_visible_lines_stay_and_the_buffer_is_consecutive_and_bounded(actions: list[tuple[str, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_buffer, "CAPACITY", 20)
        buffer = LogBuffer()
        buffer.replace(LogPage(lines_at(1000, 30), False, True), 0)
        newest = 1030
        for action, count in actions:
            if action == "prepend":  # happens when the user has scrolled up to the first line
                buffer.lines_below = len(buffer.lines) - 1
            elif action == "extend":
                buffer.lines_below = min(buffer.lines_below, 1)
            bottom = buffer.lines[len(buffer.lines) - buffer.lines_below - 1].offset if buffer.lines_below else None
            if action == "append":
                for line in lines_at(newest, count):
                    buffer.append(line)
                newest += count
            elif action == "prepend":
                buffer.prepend(LogPage(lines_at(buffer.lines[0].offset - count, count), False, False))
            elif action == "extend" and not buffer.at_end:
                begin = buffer.lines[-1].offset + 1
                chunk = lines_at(begin, min(count, newest - begin))
                buffer.extend(LogPage(chunk, False, begin + len(chunk) == newest))
            elif action == "scroll":
                buffer.lines_below = min(buffer.lines_below + count, len(buffer.lines) - 1)
                continue
            offsets = [line.offset for line in buffer.lines]
            assert offsets == list(range(offsets[0], offsets[0] + len(offsets)))
            assert len(offsets) <= 2 * 20 + 40 + 1
            assert not buffer.at_end or offsets[-1] == newest - 1
            if bottom is not None and buffer.lines_below:
                assert buffer.lines[len(buffer.lines) - buffer.lines_below - 1].offset == bottom
            elif bottom is not None:
                assert offsets[-1] == bottom


def test_pages_are_read_in_both_directions_and_filtered(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    events = [Log(n, text=f"line {n}") if n % 3 else Step(n, step=n) for n in range(300)]
    path.write_bytes(b"".join(encode(event) + b"\n" for event in events))
    end = path.stat().st_size
    everything = log_buffer.read_before(path, end, 1000, lambda line: True)
    assert everything.at_start
    assert [line.text for line in everything.lines] == [f"line {n}" for n in range(300) if n % 3]
    matching = log_buffer.read_before(path, end, 1000, lambda line: log_buffer.matches(line.text, ("line", "7")))
    assert [line.text for line in matching.lines] == [f"line {n}" for n in range(300) if n % 3 and "7" in str(n)]
    after = log_buffer.read_after(path, everything.lines[10].offset, end, 1000, lambda line: True)
    assert after.at_end and after.lines == everything.lines[10:]
    assert log_buffer.read_after(path, end, end, 10, lambda line: True) == LogPage([], False, True)


def test_repeated_lines_about_memory_are_one() -> None:
    lines = [log_buffer.to_line(n, Memory(t=1.0, parts={"weights": n << 20}, micro=1)) for n in (1, 2, 3)]
    other = log_buffer.to_line(4, Log(t=1.0, level="info", text="x"))
    assert None not in lines and other is not None
    buffer = LogBuffer()
    buffer.replace(LogPage([line for line in lines if line], True, True), 0)
    assert [line.shown for line in buffer.lines] == ["predicted memory 3.00 MiB: weights 3.00 MiB (3 such lines)"]
    for line in (*lines, other, lines[0]):
        assert line is not None
        buffer.append(line)
    assert [line.times for line in buffer.lines] == [6, 1, 1]
