"""Reads the documents of a source file: its rows, or the file as a whole."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from data.pack.raw_file import COMPRESSED, FileFault, RawFile, blocks, suffix_of
from data.pack.sources import Source
from profiles.errors import UserError
from profiles.install_command import install_extra
from profiles.printable import brief
from profiles.reader import open_regular

LIMIT = 64 << 20  # bytes of a document
TOO_LARGE = f"larger than {LIMIT >> 20} MiB"
EMPTY, NOT_TEXT, NOT_UTF8 = "empty", "not text", "not UTF-8 text"
UTF16 = "UTF-16, to be converted to UTF-8"
BAD_JSON, BAD_CSV = "not valid JSON", "not valid CSV"
TOO_MANY = "more fields than the header"
NO_TEXT = "without text under --text-key"
_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")
_ROWS = re.compile(rb"\s*\[\s*\{")
_JSONL = (".jsonl", ".ndjson")
_CSV = {".csv": ",", ".tsv": "\t"}
_OF_ROWS = {".parquet", *_JSONL, *_CSV}
LARGE = 8 << 20  # bytes above which only one document is held at a time: as a str it may take four times as many
# csv keeps one limit for the whole process.
csv.field_size_limit(LIMIT)


class Skipped(str):
    """Why a document was left out."""

    __slots__ = ()


Item = bytes | Skipped


def kind_of(path: str) -> str:
    """Return the suffix that says how a file is read, without that of its compression."""
    kind = suffix_of(path)
    return suffix_of(path[: -len(kind)]) if kind in COMPRESSED else kind


def is_one_document(path: str) -> bool:
    """Return whether a file without a separator in it is a document, byte for byte."""
    kind = suffix_of(path)
    return kind not in _OF_ROWS and kind not in COMPRESSED


def has_rows_as_text(path: str) -> bool:
    """Return whether a ``.json`` file is an array of objects: others take these for rows, here the file is a text."""
    if suffix_of(path) != ".json":
        return False
    try:
        with open_regular(path) as file:
            return _ROWS.match(file.read(1 << 12).removeprefix(_BOM)) is not None
    except OSError:  # said where it is read
        return False


def check_readable(path: str) -> None:
    """Raise ``UserError`` where the library that reads this kind of file is not installed."""
    if kind_of(path) == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise UserError(f"{path}: to read it needs pyarrow: {install_extra('parquet')}") from None


def read_documents(
    source: Source, raw: RawFile, key: str, separator: bytes | None, hold: Callable[[], object] = lambda: None
) -> Iterator[Item]:
    """Yield each document of a file as UTF-8, or why it was left out. None is larger than ``LIMIT`` bytes.

    ``key`` names the text in a row. ``separator`` cuts a text file into documents. Text is not checked to be UTF-8
    here. ``hold`` is called before a document of more than ``LARGE`` bytes is held, and may wait. Raise ``OSError`` or
    ``FileFault`` where the rest of the file cannot be read.
    """
    kind = kind_of(source.path)
    if kind == ".parquet":
        return _parquet(source.path, raw, key, hold)
    content = blocks(source.path, raw)
    first = next(content, b"")
    if first.startswith(_UTF16_BOMS):
        return iter([Skipped(UTF16)])
    content, line_end = chain([first], content), _line_end(first)
    del first
    if kind in _JSONL:
        return _jsonl(content, key, line_end, hold)
    if kind in _CSV:
        return _csv(content, key, _CSV[kind], line_end, hold)
    if separator:
        return (_stripped(part) for part in _cut(content, separator, hold))
    return _whole(content, source.size, hold)


def _line_end(first: bytes) -> bytes:
    """Return what ends the lines of a table by its first block: a newline, or in old files of a Mac ``\\r`` alone."""
    line = first[: first.find(b"\n")] if b"\n" in first else first
    return b"\r" if b"\r" in line.rstrip(b"\r") else b"\n"  # a file converted twice has \r\r\n


def _stripped(part: Item) -> Item:
    """Return a part of a text file without the line ends around it."""
    if isinstance(part, Skipped) or b"\0" in part:
        return part if isinstance(part, Skipped) else Skipped(NOT_TEXT)
    return part.strip(b"\r\n") or Skipped(EMPTY)


def _whole(content: Iterator[bytes], size: int, hold: Callable[[], object]) -> Iterator[Item]:
    if size > LIMIT:  # compressed or not: no need to read it
        yield Skipped(TOO_LARGE)
        return
    parts, held = [], 0
    for block in content:
        parts.append(block)
        held += len(block)
        if held > LIMIT or b"\0" in block:
            yield Skipped(TOO_LARGE if held > LIMIT else NOT_TEXT)
            return
        if held > LARGE:
            hold()
    yield b"".join(parts).removeprefix(_BOM) or Skipped(EMPTY)


def _cut(content: Iterator[bytes], separator: bytes, hold: Callable[[], object]) -> Iterator[Item]:
    """Yield what lies between separators, without them; what is too large is not held."""
    parts: list[bytes] = []
    size, rest, bom = 0, b"", _BOM
    for block in content:
        block, bom = rest + block.removeprefix(bom), b""
        start = 0
        while (end := block.find(separator, start)) >= 0:
            parts.append(block[start:end])
            whole = b"".join(parts) if size + end - start <= LIMIT else Skipped(TOO_LARGE)
            parts.clear()
            yield whole
            del whole
            size, start = 0, end + len(separator)
        border = max(start, len(block) - len(separator) + 1)  # a separator may begin behind it
        parts.append(block[start:border])
        rest, size = block[border:], size + border - start
        if size > LIMIT:
            parts.clear()
        elif size > LARGE:
            hold()
    parts.append(rest)
    if size + len(rest) > LIMIT:
        yield Skipped(TOO_LARGE)
    elif last := b"".join(parts):
        yield last


def _jsonl(content: Iterator[bytes], key: str, line_end: bytes, hold: Callable[[], object]) -> Iterator[Item]:
    import msgspec

    row = msgspec.defstruct("Row", [("text", Any, None)], rename={"text": key})
    decode = msgspec.json.Decoder(row).decode
    for line in _cut(content, line_end, hold):
        if isinstance(line, Skipped):
            yield line
        elif line and not line.isspace():
            try:
                text = decode(line).text  # type: ignore[attr-defined]
                del line  # of a large row not three copies at a time
                item = (text.encode() or Skipped(EMPTY)) if type(text) is str else Skipped(f"{NO_TEXT} {brief(key)}")
                del text
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                item = Skipped(BAD_JSON)
            yield item
            del item


def _csv(
    content: Iterator[bytes], key: str, delimiter: str, line_end: bytes, hold: Callable[[], object]
) -> Iterator[Item]:
    fed, ended = 0, False  # bytes of the row that is being read; whether the file was read to its end

    def lines() -> Iterator[str]:
        nonlocal fed, ended
        for line in _cut(content, line_end, hold):
            fed += LIMIT + 1 if isinstance(line, Skipped) else len(line)
            if fed > LIMIT:
                raise FileFault(f"has a row {TOO_LARGE}")
            if fed > LARGE:
                hold()
            # A byte that is not UTF-8 becomes a surrogate, which encode() below refuses.
            yield str(line + line_end, "utf-8", "surrogateescape") if isinstance(line, bytes) else ""
        ended = True

    # Strict: otherwise a quote that is misplaced changes the text, or joins rows, without a word.
    rows = csv.reader(lines(), delimiter=delimiter, strict=True)
    try:
        names = next(filter(None, rows), None)
    except csv.Error:
        raise FileFault("has no valid header: a quote does not enclose a whole name") from None
    if names is None:
        yield Skipped(EMPTY)
        return
    if key not in names:
        columns = ", ".join(brief(name) for name in names[:10])
        raise FileFault(f"has no column {brief(key)}; name one with --text-key: {columns}")
    column = names.index(key)
    while True:
        fed, first = 0, rows.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error:
            if ended:
                raise FileFault(f"has a quote that is not closed, in the row of line {first}") from None
            yield Skipped(BAD_CSV)
            continue
        if not row:  # an empty line
            continue
        more = any(row[len(names) :])  # a comma at the end of each row adds an empty one
        if more or len(row) <= column:
            yield Skipped(TOO_MANY if more else f"{NO_TEXT} {brief(key)}")
            continue
        try:
            yield row[column].encode() or Skipped(EMPTY)
        except UnicodeEncodeError:
            yield Skipped(NOT_UTF8)


def _parquet(path: str, raw: RawFile, key: str, hold: Callable[[], object]) -> Iterator[Item]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    while raw.read(1 << 20):  # for its hash
        pass
    try:
        with pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
            if key not in file.schema_arrow.names:
                columns = ", ".join(brief(name) for name in file.schema_arrow.names[:10])
                raise FileFault(f"has no column {brief(key)}; name one with --text-key: {columns}")
            for batch in file.iter_batches(_rows_at_once(file), columns=[key], use_threads=False):
                for text in batch.column(0).cast(pa.large_binary()).to_pylist():
                    if text is None:
                        yield Skipped(f"{NO_TEXT} {brief(key)}")
                    else:
                        if len(text) > LARGE:
                            hold()
                        yield Skipped(TOO_LARGE) if len(text) > LIMIT else text or Skipped(EMPTY)
    except (pa.ArrowException, OSError) as error:
        raise FileFault(f"is not readable as Parquet ({brief(str(error))})") from None


def _rows_at_once(file: Any) -> int:
    """Return how many rows are about 8 MiB."""
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    average = max((group.total_byte_size / max(group.num_rows, 1) for group in groups), default=1)
    return max(1, min(1024, int((8 << 20) / max(average, 1))))
