"""Packs files of every kind, whole and damaged: which documents they give, and what is said of the rest."""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from data.pack.batches import Task, read_batches
from data.pack.raw_file import RawFile
from data.pack.sources import Source
from profiles.errors import UserError
from tests.unit.data.packs import EOT, Notes, documents, make_tokenizer, pack_into, rows, write_files


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json")


def compressed(text: str) -> dict[str, bytes]:
    return {
        "one member.gz": gzip.compress(text.encode()),
        "two members.gz": gzip.compress(text[:9].encode()) + gzip.compress(text[9:].encode()),
        "one frame.zst": zstandard.compress(text.encode()),
        "two frames.zst": zstandard.compress(text[:9].encode()) + zstandard.compress(text[9:].encode()),
    }


ROWS = ["first\n", 'second, "quoted"\nline', "third ä"]


def every_format() -> Iterator[tuple[str, bytes]]:
    jsonl = rows(*({"id": n, "text": text, "meta": {"text": 1}} for n, text in enumerate(ROWS)))
    cells = ["{}".format(text.replace('"', '""')) for text in ROWS]
    csv = "id,text\n" + "".join(f'{n},"{cell}"\n' for n, cell in enumerate(cells))
    yield "a.jsonl", jsonl.encode()
    yield "bom.jsonl", b"\xef\xbb\xbf" + jsonl.replace("\n", "\r\n").encode()
    yield "no last newline.jsonl", jsonl.encode().rstrip()
    yield "a.csv", csv.encode()
    yield "old mac.csv", ("id,text\r" + "".join(f'{n},"{cell}"\r' for n, cell in enumerate(cells))).encode()
    yield "old mac.jsonl", jsonl.replace("\n", "\r").encode()
    yield (
        "twice converted.csv",
        "id,text\r\r\n{}".format("".join(f'{n},"{c}"\r\r\n' for n, c in enumerate(cells))).encode(),
    )
    yield "bom.csv", b"\xef\xbb\xbf" + csv.encode()
    yield "a.tsv", csv.replace("id,text", "id\ttext").replace(',"', '\t"').encode()
    for suffix, content in compressed(jsonl).items():
        kind, _, compression = suffix.rpartition(".")
        yield f"{kind}.jsonl.{compression}", content
    yield "a.csv.gz", gzip.compress(csv.encode())


FORMATS = dict(every_format())


@pytest.mark.parametrize("name", FORMATS)
def test_each_row_of_a_table_is_a_document(tmp_path: Path, tokenizer: Path, name: str) -> None:
    write_files(tmp_path, {name: FORMATS[name]})
    packed = pack_into(tmp_path / "out", tmp_path / name, tokenizer=tokenizer, val=0)
    assert documents(packed) == ROWS
    assert packed.progress.skipped.to_dict() == {}


def test_an_array_of_json_is_said_to_be_packed_as_text(tmp_path: Path, tokenizer: Path) -> None:
    array, report = json.dumps([{"text": "one"}, {"text": "two"}], indent=1), Notes()
    write_files(tmp_path, {"a.json": array, "package.json": '{"name": "x"}', "empty.json": ""})
    files = [tmp_path / name for name in ("a.json", "package.json", "empty.json")]
    packed = pack_into(tmp_path / "out", *files, tokenizer=tokenizer, val=0, report=report)
    assert array in documents(packed)
    assert [line for line in report.lines if "is an array of JSON, packed as the text it is" in line] == report.lines[
        :1
    ]
    assert f"jq -c '.[]' {files[0]} > rows.jsonl" in report.lines[0]


def test_parquet(tmp_path: Path, tokenizer: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    for name, kind in (("plain", pa.string()), ("large", pa.large_string())):
        column = pa.array([*(f"{name} {text}" for text in ROWS), None, ""], kind)
        table = pa.table({"body": column, "id": range(5)})
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=2)
    packed = pack_into(tmp_path / "out", f"{tmp_path}/*.parquet", tokenizer=tokenizer, val=0, text_key="body")
    assert documents(packed) == [f"{name} {text}" for name in ("large", "plain") for text in ROWS]
    assert sum(each["count"] for each in packed.progress.skipped.to_dict().values()) == 4


BAD_ROWS: dict[str, tuple[bytes, str]] = {
    "not json": (b"{text: 1}", "not valid JSON"),
    "cut off": (b'{"text": "a', "not valid JSON"),
    "a list": (b'["text"]', "not valid JSON"),
    "nested without end": (b"[" * 100_000, "not valid JSON"),
    "half of a pair": (rb'{"text": "\ud800"}', "not valid JSON"),
    "not UTF-8": (b'{"text": "\xff\xfe"}', "not valid JSON"),
    "no key": (b'{"other": "a"}', "without text under --text-key 'text'"),
    "null": (b'{"text": null}', "without text under --text-key 'text'"),
    "a number": (b'{"text": 1}', "without text under --text-key 'text'"),
    "empty": (b'{"text": ""}', "empty"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_bad_row_is_counted_and_the_others_are_packed(tmp_path: Path, tokenizer: Path, name: str) -> None:
    bad, reason = BAD_ROWS[name]
    good = rows({"text": "good"}).encode()
    path = write_files(tmp_path, {"a.jsonl": bad + b"\n\n" + good + bad}) / "a.jsonl"
    packed = pack_into(tmp_path / "out", path, tokenizer=tokenizer, val=0)
    assert documents(packed) == ["good"]
    assert packed.progress.skipped.to_dict() == {reason: {"count": 2, "files": [str(path)]}}


UNEVEN_CSV: dict[str, tuple[str, str]] = {
    "a comma in a text without quotes": ("9,hello, world\n", "more fields than the header"),
    "words behind a quoted text": ('9,"hello" world\n', "not valid CSV"),
    "a quote that is closed rows later": ('9,"hello\n9,"again" here\n', "not valid CSV"),
    "a row of one field": ("9\n", "without text under --text-key 'text'"),
}


@pytest.mark.parametrize("name", UNEVEN_CSV)
def test_a_row_that_csv_does_not_hold_as_it_was_meant_is_left_out(tmp_path: Path, tokenizer: Path, name: str) -> None:
    bad, reason = UNEVEN_CSV[name]
    path = write_files(tmp_path, {"a.csv": f'\nid,text\n1,one\n\n{bad}\n2,"two",\n\n'}) / "a.csv"
    packed = pack_into(tmp_path / "out", path, tokenizer=tokenizer, val=0)
    assert documents(packed) == ["one", "two"]
    assert packed.progress.skipped.to_dict() == {reason: {"count": 1, "files": [str(path)]}}


def test_what_is_read_of_a_file_before_it_is_damaged_is_said_to_be_packed(tmp_path: Path, tokenizer: Path) -> None:
    csv = 'id,text\n1,one\n2,two\n3,"three\n' + "4,four\n" * 9
    path = write_files(tmp_path, {"a.csv": csv}) / "a.csv"
    packed = pack_into(tmp_path / "out", path, tokenizer=tokenizer, val=0, report=(report := Notes()))
    assert documents(packed) == ["one", "two"] and packed.progress.faults == 1
    found = f"{path}: has a quote that is not closed, in the row of line 4"
    assert report.lines == [f"{found}; the 2 documents before that are packed"]


BAD_FILES: dict[str, tuple[bytes, str]] = {
    "cut.jsonl.gz": (gzip.compress(b"x" * 999)[:-9], "is damaged or truncated"),
    "no.txt.gz": (b"plain text", "is damaged or truncated"),
    "cut.jsonl.zst": (zstandard.compress(os.urandom(9999))[:-9], "is truncated"),
    "no.txt.zst": (b"plain text", "is damaged"),
    "no header.csv": (b'"text" x\n1\n', "has no valid header: a quote does not enclose a whole name"),
    "no column.csv": (b"a,b\n1,2\n", "has no column 'text'; name one with --text-key: 'a', 'b'"),
    "no.parquet": (b"plain text", "is not readable as Parquet"),
}


def test_a_bad_file_is_named_and_the_others_are_packed(tmp_path: Path, tokenizer: Path) -> None:
    write_files(tmp_path / "in", {**{name: content for name, (content, _) in BAD_FILES.items()}, "a.txt": "good"})
    os.mkfifo(tmp_path / "in" / "fifo")
    (tmp_path / "in" / "nowhere").symlink_to("nothing")
    (tmp_path / "in" / "again").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "itself").symlink_to("itself")
    (tmp_path / "in" / "null").symlink_to("/dev/null")
    report = Notes()
    packed = pack_into(tmp_path / "out", tmp_path / "in", tokenizer=tokenizer, val=0, report=report)
    assert documents(packed) == ["good"]
    expected = {name: reason for name, (_, reason) in BAD_FILES.items()} | {
        "fifo": "is a FIFO, not a regular file",
        "nowhere": "No such file or directory",
        "itself": "Too many levels of symbolic links",
        "null": "is a device, not a regular file",
    }
    assert packed.progress.faults == len(expected)
    for name, reason in expected.items():
        assert [line for line in report.lines if line.startswith(f"{tmp_path}/in/{name}: {reason}")], name
    listed = [json.loads(line) for line in (packed.target / "sources.jsonl").read_text().splitlines()]
    assert {Path(entry["path"]).name for entry in listed if "fault" in entry} == set(expected)


def test_files_that_are_no_text_are_counted(tmp_path: Path, tokenizer: Path) -> None:
    files: dict[str, str | bytes] = {
        "a.pyc": b"\0\1",
        "b.txt": b"\xff",
        "c.txt": b"",
        "d.txt": b"\xef\xbb\xbf",
        ".hidden": "x",
        "e.txt": "good",
        "f.txt": "in two bytes".encode("utf-16"),
        "g.csv": "text\nin two bytes\n".encode("utf-16"),
        "h.csv": "",
    }
    packed = pack_into(tmp_path / "out", write_files(tmp_path / "in", files), tokenizer=tokenizer, val=0)
    assert documents(packed) == ["good"]
    counts = {reason: each["count"] for reason, each in packed.progress.skipped.to_dict().items()}
    assert counts == {"not text": 1, "not UTF-8 text": 1, "empty": 3, "UTF-16, to be converted to UTF-8": 2}


def test_a_document_above_the_limit_is_left_out_before_it_is_held(tmp_path: Path, tokenizer: Path) -> None:
    from data.pack import documents as reading

    line = json.dumps({"text": "x" * 3000}) + "\n"
    files: dict[str, str | bytes] = {
        "a.txt": "x" * 3000,
        "b.txt.gz": gzip.compress(b"x" * 3000),
        "c.jsonl": line + rows({"text": "row"}) + line,
        "d.txt": "good",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "LIMIT", 2000)
        packed = pack_into(tmp_path / "out", write_files(tmp_path / "in", files), tokenizer=tokenizer, val=0)
    assert documents(packed) == ["row", "good"]
    assert packed.progress.skipped.to_dict()["larger than 64 MiB"]["count"] == 4


@settings(max_examples=40)
@given(
    text=st.text("ab,;\n", max_size=60),
    separator=st.sampled_from([b"\n", b",;", b"aba"]),
    sizes=st.lists(st.integers(1, 9), min_size=1),
)
def test_where_the_blocks_of_a_file_end_does_not_matter(text: str, separator: bytes, sizes: list[int]) -> None:
    from data.pack.documents import _cut

    content, blocks, start = text.encode(), [], 0
    for size in sizes * 60:
        blocks.append(content[start : start + size])
        start += size
    *whole, last = content.split(separator)
    assert list(_cut(iter(blocks), separator, lambda: None)) == [*whole, *([last] if last else [])]


def test_separators_cut_a_text_file(tmp_path: Path, tokenizer: Path) -> None:
    files = {"a.txt": f"one\n{EOT}\ntwo\n\ntwo{EOT}{EOT}", "b.txt": "three"}
    source = write_files(tmp_path / "in", files)
    packed = pack_into(tmp_path / "out", source, tokenizer=tokenizer, val=0, separator=EOT)
    assert documents(packed) == ["one", "two\n\ntwo", "three"]


def test_standard_input_is_named_as_the_user_does(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(rows({"text": "good"}).encode() + b'{"text": "cut')))
    packed = pack_into(tmp_path / "out", "-", tokenizer=tokenizer, val=0, stdin_format="jsonl")
    assert documents(packed) == ["good"]
    assert packed.progress.skipped.to_dict() == {"not valid JSON": {"count": 1, "files": ["-"]}}
    assert json.loads((packed.target / "sources.jsonl").read_text())["path"] == "-"
    for separator, why in ((None, "is one document, larger than 64 MiB"), ("###", "has no '###' in its first 64 MiB")):
        with (
            open("/dev/zero") as zero,
            pytest.raises(UserError, match=f"-: standard input {why}: nothing"),
        ):
            monkeypatch.setattr(sys, "stdin", zero)
            pack_into(tmp_path / "other", "-", tokenizer=tokenizer, separator=separator)
    monkeypatch.setattr(sys, "stdin", None)  # as with <&-
    with pytest.raises(UserError, match="-: standard input is closed: pipe text into it, or name a file"):
        pack_into(tmp_path / "other", "-", tokenizer=tokenizer)
    assert not (tmp_path / "other").exists()


def test_a_file_that_grows_while_it_is_read_is_read_to_its_end(tmp_path: Path) -> None:
    path = write_files(tmp_path, {"a.txt": "first"}) / "a.txt"
    with RawFile(Source(str(path), 0, 5, path.stat().st_mtime_ns)) as raw:
        path.write_text("first" + "more" * 9)
        assert b"".join(iter(raw.read, b"")) == path.read_bytes()
        assert raw.position == 41  # so it is not taken for the file that was listed


@pytest.mark.parametrize(("size", "read"), [(5 << 20, 5), (9 << 20, 9), (9 << 20 | 9, 9)], ids=["cut", "kept", "grown"])
def test_a_file_that_changes_while_it_is_read_is_named(tmp_path: Path, size: int, read: int) -> None:
    row = b'{"text": "%s"}\n' % (b"x" * ((1 << 20) - 13))
    path = write_files(tmp_path, {"a.jsonl": row * 9}) / "a.jsonl"
    status = path.stat()
    task = Task((Source(str(path), 0, status.st_size, status.st_mtime_ns),))
    batches = read_batches(task, lambda: None, "text", None)
    first = next(batches)
    if size != 9 << 20:
        os.truncate(path, size)
    rest = list(batches)
    assert len(first.documents) + sum(len(batch.documents) for batch in rest) == read
    (end,) = rest[-1].ended
    assert end.fault == ("" if size == 9 << 20 else "has changed while it was read")
