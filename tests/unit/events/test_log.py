"""The log: one record per line, with several writers and torn lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.events import log as log_module
from engine.events.log import MAX_LINE, LogWriter, Tail, read_all, scan

WRITER = """
import sys
from pathlib import Path
from engine.events.log import LogWriter
log = LogWriter(Path(sys.argv[1]), int(sys.argv[2]))
for i in range(300):
    log.write("log", i=i, text=sys.argv[2] * (i * 37 % 9000))
log.close()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def test_records_of_several_processes_never_mix(path: Path) -> None:
    path.write_bytes(b"")
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(n)]) for n in (1, 2, 3)]
    assert [w.wait() for w in writers] == [0, 0, 0]
    seen: dict[int, list[int]] = {1: [], 2: [], 3: []}
    for _, record in read_all(path):
        assert record["text"] == str(record["attempt"]) * (record["i"] * 37 % 9000)
        seen[record["attempt"]].append(record["i"])
    assert seen == {n: list(range(300)) for n in (1, 2, 3)}


def test_a_record_carries_time_kind_and_attempt(path: Path) -> None:
    log = LogWriter(path, attempt=3)
    written = log.write("state", phase="running")
    [(at, record)] = read_all(path)
    assert (at, record) == (0, written)
    assert list(record) == ["t", "kind", "attempt", "phase"]
    assert (record["kind"], record["attempt"]) == ("state", 3)


def test_nan_and_infinity_become_null_at_any_depth(path: Path) -> None:
    inf, nan = float("inf"), float("nan")
    LogWriter(path, 1).write("step", step=1, loss=nan, parts={"a": [inf, 1.5, (-inf,)]})
    assert b"NaN" not in path.read_bytes()
    [(_, record)] = read_all(path)
    assert record["loss"] is None
    assert record["parts"] == {"a": [None, 1.5, [None]]}


def test_nan_of_another_writer_is_read_as_null(path: Path) -> None:
    path.write_bytes(b'{"t":1,"kind":"step","step":1,"loss":NaN,"lr":-Infinity}\n')
    [(_, record)] = read_all(path)
    assert record == {"t": 1, "kind": "step", "step": 1, "loss": None, "lr": None}


def test_a_record_torn_at_any_byte_loses_only_itself(path: Path) -> None:
    log = LogWriter(path, 1)
    log.write("log", text="first")
    begin = path.stat().st_size
    log.write("log", text="second")
    log.close()
    whole = path.read_bytes()
    for cut in range(begin, len(whole)):
        path.write_bytes(whole[:cut])
        assert [r["text"] for _, r in read_all(path)] == ["first"]
        log = LogWriter(path, 2)
        log.write("log", text="third")
        log.close()
        # A cut that took only the newline took nothing of the record.
        expected = ["first", "second", "third"] if cut == len(whole) - 1 else ["first", "third"]
        assert [r["text"] for _, r in read_all(path)] == expected


@pytest.mark.parametrize("torn", [b"\n", b'{"kind":"st\n', b"\x00" * 40 + b"\n", b"[1]\n", b'{"a":1}\n', b"\xff\r\n"])
def test_a_torn_line_in_the_middle_is_skipped_and_offsets_stay_right(path: Path, torn: bytes) -> None:
    first, last = b'{"kind":"a"}\n', b'{"kind":"b"}\n'
    path.write_bytes(first + torn + last)
    assert list(read_all(path)) == [(0, {"kind": "a"}), (len(first + torn), {"kind": "b"})]


def test_a_line_nested_too_deep_is_no_record(path: Path) -> None:
    path.write_bytes(b'{"kind":' + b"[" * 100_000 + b'\n{"kind":"b"}\n')
    assert [r["kind"] for _, r in read_all(path)] == ["b"]


def test_records_after_megabytes_without_one_are_found(path: Path) -> None:
    path.write_bytes(
        b'{"kind":"a"}\n' + b"\x00" * (2 * MAX_LINE) + b"\n" + (b"#" * 999 + b"\n") * 3000 + b'{"kind":"b"}\n'
    )
    tail = Tail(path)
    kinds = []
    while found := tail.poll():  # as every reader does: an empty list is the end
        kinds += [r["kind"] for _, r in found]
    assert kinds == ["a", "b"]
    assert not tail.has_grown()
    tail.close()


def test_a_partly_written_record_raises(tmp_path: Path) -> None:
    script = """
import resource, signal, sys
from pathlib import Path
from engine.events.log import LogWriter, read_all
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path(sys.argv[1])
log = LogWriter(path, 1)
log.write("log", text="whole")
size = path.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, -1))
for _ in range(2):
    try:
        log.write("log", text="lost")
    except OSError:
        pass
    else:
        sys.exit("the loss was not reported")
resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
log.write("log", text="after")
print([r["text"] for _, r in read_all(path)])
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
        **{"torn": b'{"kind":"state","id":"x', "empty": b"", "hidden": b'{"kind":"log","text":"\\"id\\""}'},
        **{"id": b'{"t":1,"kind":"state","phase":"x","id":"one"}', "plain": b'{"kind":"log","text":"id"}'},
        **{"edit": b'{"kind":"edit","ok":true,"changed":{},"step":1,"id":"two"}'},
        **{"long": b'{"kind":"log","text":"' + b"y" * 1000 + b'","id":"three"}'},
    }
    path.write_bytes(b"".join(parts[name] + b"\n" for name in lines) + b'{"id":"unfinished"')
    everything = list(read_all(path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_module, "MAX_LINE", chunk)
        assert [(at, r) for at, r in scan(path, b'"id"') if "id" in r] == [(at, r) for at, r in everything if "id" in r]
        edits = [(at, r) for at, r in scan(path, b'"edit"', b'"other"') if r["kind"] == "edit"]
    assert edits == [(at, r) for at, r in everything if r["kind"] == "edit"]


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
        *(b'{"kind":["step"],"step":1}', b'{"kind":"state","phase":"running"}', b'{"t":1,"kind":"state","phase":[]}'),
        *(b'{"t":1e18,"kind":"state","phase":"running"}', b'{"t":-1,"kind":"log"}', b'{"kind":"log","attempt":"x"}'),
        *(b'{"t":1,"kind":"telemetry","rss":[1]}', b'{"t":1,"kind":"telemetry","rss":[1,null]}'),
        *(b'{"kind":"telemetry","rss":1}', b'{"kind":"start","resumed_from":"x"}', b'{"kind":"val","loss":1}'),
        *(b'{"kind":"edit","ok":true,"changed":{"micro":4},"step":1}', b'{"kind":"edit","ok":true,"step":1}'),
        *(b'{"kind":"exit","code":"x"}', b'{"kind":"log","id":7}', b'{"kind":"checkpoint","ok":"yes"}'),
    ],
)
def test_a_line_that_does_not_match_the_schema_is_no_record(path: Path, line: bytes) -> None:
    path.write_bytes(line + b'\n{"kind":"b"}\n')
    tail = Tail(path)
    assert [r["kind"] for _, r in tail.poll()] == ["b"]
    assert tail.damaged == [0]
    tail.close()


def test_fields_and_kinds_of_a_newer_version_pass(path: Path) -> None:
    path.write_bytes(b'{"t":1,"kind":"step","step":1,"new":{"a":[1]}}\n{"t":1,"kind":"newer","step":"x"}\n')
    assert len(list(read_all(path))) == 2


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
        log.write("log", content=content)
    log.close()
    everything = list(read_all(path))
    start = round(share * path.stat().st_size)
    assert list(read_all(path, start)) == [(at, r) for at, r in everything if at >= start]


def test_a_tail_follows_a_file_that_does_not_exist_yet(path: Path) -> None:
    tail = Tail(path)
    assert not tail.has_grown()
    assert tail.poll() == []
    log = LogWriter(path, 1)
    log.write("log", n=1)
    assert tail.has_grown()
    assert [r["n"] for _, r in tail.poll()] == [1]
    with open(path, "ab") as file:  # half a record is not there yet
        line = json.dumps({"kind": "log", "n": 2}).encode() + b"\n"
        file.write(line[:9])
        file.flush()
        assert tail.poll() == []
        file.write(line[9:])
    assert [r["n"] for _, r in tail.poll()] == [2]
    tail.sync()
    tail.close()
