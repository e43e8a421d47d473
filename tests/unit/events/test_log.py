"""The log: one record per line, with several writers and torn lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.events import log as log_module
from engine.events.log import MAX_LINE, LogWriter, Tail, needles, read_all, scan
from engine.events.requests import SetRequest
from engine.events.types import Checkpoint, Command, Edit, Event, Log, Spec, Start, State, Step
from tests.events import of_kind, records

WRITER = """
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from engine.events.log import LogWriter
from engine.events.types import Log
log = LogWriter(Path(sys.argv[1]), int(sys.argv[2]))
for i in range(300):
    log.write(Log(rank=i, text=sys.argv[2] * (i * 37 % 9000)))
log.close()
"""


FIRST, LAST = b'{"t":1,"kind":"log","text":"a"}\n', b'{"t":1,"kind":"log","text":"b"}\n'


def texts_of(events: Iterable[tuple[int, Event]]) -> list[str | None]:
    return [event.text for event in of_kind(Log, events)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def test_records_of_several_processes_never_mix(path: Path) -> None:
    path.write_bytes(b"")
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(n)]) for n in (1, 2, 3)]
    assert [w.wait() for w in writers] == [0, 0, 0]
    seen: dict[int, list[int]] = {1: [], 2: [], 3: []}
    for event in of_kind(Log, read_all(path)):
        assert event.rank is not None
        assert event.text == str(event.attempt) * (event.rank * 37 % 9000)
        seen[event.attempt].append(event.rank)
    assert seen == {n: list(range(300)) for n in (1, 2, 3)}


def test_a_record_carries_time_kind_and_attempt(path: Path) -> None:
    log = LogWriter(path, attempt=3)
    written = log.write(State(phase="running"))
    [(at, event)] = read_all(path)
    assert (at, event) == (0, written)
    [record] = records(path)
    assert list(record) == ["kind", "t", "attempt", "phase"]
    assert (record["kind"], record["attempt"], abs(record["t"] - time.time()) < 60) == ("state", 3, True)


def test_nan_and_infinity_become_null_at_any_depth(path: Path) -> None:
    inf, nan = float("inf"), float("nan")
    LogWriter(path, 1).write(Step(step=1, loss=nan))
    LogWriter(path, 1).write(Spec(step=1, values={"a": [inf, 1.5, (-inf,)]}))
    assert b"NaN" not in path.read_bytes()
    assert records(path)[0]["loss"] is None
    assert records(path)[1]["values"] == {"a": [None, 1.5, [None]]}


def test_what_is_no_plain_text_or_number_is_written_and_read(path: Path) -> None:
    class Version(str):
        pass

    class Number(float):
        pass

    log = LogWriter(path, 1)
    log.write(Start(versions={"torch": Version("2.1")}, params=Number(1.5)))
    log.write(Checkpoint(ok=True, path="/data/\udcff/ckpt", step=3))  # a byte that is not UTF-8
    log.write(Command(id="a" * 12, request=SetRequest(changes={"micro": 10**400})))
    [(_, start), (_, saved), (_, command)] = read_all(path)
    assert isinstance(start, Start) and (start.versions, start.params) == ({"torch": "2.1"}, 1.5)
    assert isinstance(saved, Checkpoint) and saved.path == "/data/\udcff/ckpt"
    assert isinstance(command, Command) and command.request == SetRequest(changes={"micro": 10**400})


def test_nan_of_another_writer_is_read_as_null(path: Path) -> None:
    path.write_bytes(b'{"t":1,"kind":"step","step":1,"loss":NaN,"lr":-Infinity}\n')
    assert [event for _, event in read_all(path)] == [Step(1.0, step=1)]


def test_a_record_torn_at_any_byte_loses_only_itself(path: Path) -> None:
    log = LogWriter(path, 1)
    log.write(Log(text="first"))
    begin = path.stat().st_size
    log.write(Log(text="second"))
    log.close()
    whole = path.read_bytes()
    for cut in range(begin, len(whole)):
        path.write_bytes(whole[:cut])
        assert [event.text for event in of_kind(Log, read_all(path))] == ["first"]
        log = LogWriter(path, 2)
        log.write(Log(text="third"))
        log.close()
        # A cut that took only the newline took nothing of the record.
        expected = ["first", "second", "third"] if cut == len(whole) - 1 else ["first", "third"]
        assert [event.text for event in of_kind(Log, read_all(path))] == expected


@pytest.mark.parametrize("torn", [b"\n", b'{"kind":"st\n', b"\x00" * 40 + b"\n", b"[1]\n", b'{"a":1}\n', b"\xff\r\n"])
def test_a_torn_line_in_the_middle_is_skipped_and_offsets_stay_right(path: Path, torn: bytes) -> None:
    path.write_bytes(FIRST + torn + LAST)
    assert list(read_all(path)) == [(0, Log(1.0, text="a")), (len(FIRST + torn), Log(1.0, text="b"))]


def test_a_line_nested_too_deep_is_no_record(path: Path) -> None:
    path.write_bytes(b'{"kind":' + b"[" * 100_000 + b"\n" + LAST)
    assert texts_of(read_all(path)) == ["b"]


def test_records_after_megabytes_without_one_are_found(path: Path) -> None:
    path.write_bytes(FIRST + b"\x00" * (2 * MAX_LINE) + b"\n" + (b"#" * 999 + b"\n") * 3000 + LAST)
    tail = Tail(path)
    found = []
    while events := tail.poll():  # as every reader does: an empty list is the end
        found += texts_of(events)
    assert found == ["a", "b"]
    assert not tail.has_grown()
    tail.close()


def test_a_partly_written_record_raises(tmp_path: Path) -> None:
    script = """
import resource, signal, sys
from pathlib import Path
from engine.events.log import LogWriter, read_all
from engine.events.types import Log
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path(sys.argv[1])
log = LogWriter(path, 1)
log.write(Log(text="whole"))
size = path.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, -1))
for _ in range(2):
    try:
        log.write(Log(text="lost"))
    except OSError:
        pass
    else:
        sys.exit("the loss was not reported")
resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
log.write(Log(text="after"))
print([event.text for _, event in read_all(path)])
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "log")], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == "['whole', 'after']"


def test_a_reader_that_is_not_closed_leaks_no_descriptor(path: Path) -> None:
    path.write_bytes(b'{"t":1,"kind":"log","attempt":1}\n')
    before = len(os.listdir("/dev/fd"))
    for _ in range(100):
        assert len(Tail(path).poll()) == 1
    assert len(os.listdir("/dev/fd")) < before + 10
    tail = Tail(path)
    tail.poll()
    tail.close()
    tail.close()
    assert len(tail.poll()) == 0  # it continues where it was


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from(["id", "edit", "plain", "torn", "empty", "long", "hidden"]), max_size=40),
    st.integers(1100, 3000),
)
def test_scan_finds_what_read_all_finds(tmp_path_factory: pytest.TempPathFactory, lines: list[str], chunk: int) -> None:
    path = tmp_path_factory.mktemp("log") / "events.jsonl"
    parts = {
        **{"torn": b'{"kind":"state","id":"x', "empty": b"", "hidden": b'{"t":1,"kind":"log","text":"\\"id\\""}'},
        **{"id": b'{"t":1,"kind":"state","phase":"x","id":"one"}', "plain": b'{"t":1,"kind":"log","text":"id"}'},
        **{"edit": b'{"t":1,"kind":"edit","ok":true,"changed":{},"step":1,"id":"two"}'},
        **{"long": b'{"t":1,"kind":"log","text":"' + b"y" * 1000 + b'","id":"three"}'},
    }
    path.write_bytes(b"".join(parts[name] + b"\n" for name in lines) + b'{"id":"unfinished"')
    everything = list(read_all(path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_module, "MAX_LINE", chunk)
        found = list(scan(path, b'"id"'))
        edits = of_kind(Edit, scan(path, *needles(Edit), b'"other"'))
    assert [pair for pair in found if pair[1].id] == [pair for pair in everything if pair[1].id]
    assert edits == of_kind(Edit, everything)


STEP = b'{"t":1,"kind":"step","step":1,'


@pytest.mark.parametrize(
    "line",
    [
        *(b'{"t":1,"kind":"step"}', b'{"t":1,"kind":"step","step":"x"}', b'{"t":"1","kind":"step","step":1}'),
        *(b'{"t":1,"kind":"step","step":-1}', b'{"t":1,"kind":"step","step":1.5}'),
        *(b'{"t":1,"kind":"step","step":true}', b'{"t":1,"kind":"step","step":1' + b"0" * 400 + b"}"),
        *(
            STEP + b'"loss":"2"}',
            STEP + b'"loss":1e999}',
            STEP + b'"loss":1' + b"0" * 400 + b"}",
            STEP + b'"micro":[]}',
        ),
        *(
            b'{"t":1,"kind":["step"],"step":1}',
            b'{"kind":"state","phase":"running"}',
            b'{"t":1,"kind":"state","phase":[]}',
        ),
        *(
            b'{"t":1e18,"kind":"state","phase":"running"}',
            b'{"t":-1,"kind":"log"}',
            b'{"t":1,"kind":"log","attempt":"x"}',
        ),
        *(b'{"t":1,"kind":"telemetry","rss":[1]}', b'{"t":1,"kind":"telemetry","rss":[1,null]}'),
        *(
            b'{"kind":"telemetry","rss":1}',
            b'{"t":1,"kind":"start","resumed_from":"x"}',
            b'{"t":1,"kind":"val","loss":1}',
        ),
        *(
            b'{"t":1,"kind":"edit","ok":true,"changed":{"micro":4},"step":1}',
            b'{"t":1,"kind":"edit","ok":true,"step":1}',
        ),
        *(
            b'{"t":1,"kind":"exit","code":"x"}',
            b'{"t":1,"kind":"log","id":7}',
            b'{"t":1,"kind":"checkpoint","ok":"yes"}',
        ),
    ],
)
def test_a_line_that_does_not_match_the_schema_is_no_record(path: Path, line: bytes) -> None:
    path.write_bytes(line + b"\n" + LAST)
    tail = Tail(path)
    assert texts_of(tail.poll()) == ["b"]
    assert tail.damaged == [0]
    tail.close()


def test_fields_and_kinds_of_a_newer_version_are_skipped_and_no_damage(path: Path) -> None:
    path.write_bytes(b'{"t":1,"kind":"step","step":1,"new":{"a":[1]}}\n{"t":1,"kind":"newer","step":"x"}\n' + LAST)
    tail = Tail(path)
    assert [event for _, event in tail.poll()] == [Step(1.0, step=1), Log(1.0, text="b")]
    assert tail.damaged == []
    tail.close()


texts = st.text(max_size=6)
inner = st.recursive(texts, lambda x: st.lists(x, max_size=3) | st.dictionaries(texts, x, max_size=3), max_leaves=5)


@settings(deadline=None, max_examples=50)
@given(st.lists(inner, min_size=1, max_size=4), st.floats(0, 1))
def test_reading_from_any_byte_gives_the_records_that_begin_there_or_later(
    tmp_path_factory: pytest.TempPathFactory, records: list[object], share: float
) -> None:
    path = tmp_path_factory.mktemp("log") / "events.jsonl"
    log = LogWriter(path, 1)
    for content in records:
        log.write(Spec(step=1, values={"content": content}))
    log.close()
    everything = list(read_all(path))
    start = round(share * path.stat().st_size)
    assert list(read_all(path, start)) == [(at, r) for at, r in everything if at >= start]


def test_a_tail_follows_a_file_that_does_not_exist_yet(path: Path) -> None:
    tail = Tail(path)
    assert not tail.has_grown()
    assert tail.poll() == []
    log = LogWriter(path, 1)
    log.write(Log(rank=1))
    assert tail.has_grown()
    assert [event.rank for event in of_kind(Log, tail.poll())] == [1]
    with open(path, "ab") as file:  # half a record is not there yet
        line = json.dumps({"t": 1, "kind": "log", "rank": 2}).encode() + b"\n"
        file.write(line[:9])
        file.flush()
        assert tail.poll() == []
        file.write(line[9:])
    assert [event.rank for event in of_kind(Log, tail.poll())] == [2]
    tail.sync()
    tail.close()
