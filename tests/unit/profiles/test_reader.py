"""The reader of files of unknown origin, and what a message may quote of them."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from profiles.errors import SpecError, UserError
from profiles.printable import LONGEST_LINE, LONGEST_VALUE, brief, one_line
from profiles.reader import MAX_DEPTH, MAX_TOML, Table, open_regular, parse_json, parse_toml, read_bytes, read_json


def refusal(read: Callable[..., object], *args: object) -> str:
    with pytest.raises(UserError) as caught:
        read(*args)
    text = str(caught.value)
    assert text.isprintable() and len(text) < 500
    return text


def test_only_a_regular_file_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.mkdir()
    assert refusal(read_json, path).startswith(f"{path}: cannot be read: is a directory, not a regular file; ")
    path.rmdir()
    os.mkfifo(path)
    assert "is a FIFO, not a regular file" in refusal(read_json, path)
    path.unlink()
    path.symlink_to("/dev/zero")
    assert "is a device, not a regular file" in refusal(read_json, path)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        assert "is a socket, not a regular file" in refusal(read_json, path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        read_json(path)
    for name in ("a\0b", "\ud800"):
        with pytest.raises(OSError, match="not a name that a file can have"):
            open_regular(name)


def test_a_file_that_is_too_large_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.touch()
    os.truncate(path, 1 << 40)
    assert "x: is larger than 32 MiB; repair" in refusal(read_json, path)
    assert read_bytes(Path("/proc/self/stat"))  # a file whose size the kernel does not tell


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(path) == {"a": 1}
    path.write_bytes(b'{"a": "\xff"}')
    assert "x: is not UTF-8 text from byte 7 on" in refusal(read_json, path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not valid JSON: Expecting value"),
        ("[1]", "[1] is not a JSON object"),
        ('"\\n\\u001b[2J"', "is not a JSON object"),
        ('{"a": NaN}', "NaN is not a number"),
        ('{"a": -Infinity}', "-Infinity is not a number"),
        ('{"a": 1e999}', "'1e999' is too large"),
        ('{"a": ' + "9" * 5000 + "}", "Exceeds the limit"),
        ('{"a": 99999999999999999999}', "more than 64 bits"),
        ('{"a": 1, "b\\n": 2, "b\\n": 3}', "'b\\n' is given twice"),
        ('{"a": ' + "[" * MAX_DEPTH + "]" * MAX_DEPTH + "}", "nested more than 32 deep"),
        ('{"a":' * 100_000, "nested more than 32 deep"),
    ],
)
def test_json_that_is_refused(text: str, message: str) -> None:
    assert message in refusal(parse_json, text, "f.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = ", "not valid TOML"),
        ("a = 0x" + "f" * 5000, "more than 64 bits"),
        ("a = " + "[" * 2000, "nested more than 32 deep"),
        ("a." * 500_000 + "a = 1", "nested more than 32 deep"),  # tomllib would take 1 TB
        ("b = {" + "'a' . " * 40 + "a = 1}", "nested more than 32 deep"),
        ("[" + '"a".' * 40 + "a]", "nested more than 32 deep"),
        ("\n".join(f"[{'.'.join('abcdefghij'[: i + 1] * 4)}]" for i in range(10)), "nested more than 32 deep"),
        ("a = 2026-02-30", "not valid TOML"),
    ],
)
def test_toml_that_is_refused(text: str, message: str) -> None:
    assert len(text) <= MAX_TOML
    assert message in refusal(parse_toml, text, "f.toml")


def test_long_words_and_dots_in_toml_are_fine() -> None:
    text = f"a = '{'x' * 100_000}'\n{'b' * 100_000} = 1\nc = '{'.' * 100_000}'\nd = {'[' * 30}{']' * 30}\n"
    assert len(parse_toml(text, "f.toml")) == 4
    with pytest.raises(SpecError):  # what a user wrote: the exit status of a wrong request
        parse_toml("a", "f.toml")


def test_a_field_is_checked_when_it_is_read() -> None:
    table = Table({"n": 3, "yes": True, "x": 1.5, "none": None, "t": {"n": -1}, "s": "abc"}, "f.json", "take another")
    assert (table.integer("n"), table.optional_number("x"), table.text("s")) == (3, 1.5, "abc")
    assert table.optional_number("none") is None and table.optional_number("gone") is None
    assert refusal(table.integer, "s") == "f.json: s: 'abc' is not an integer from 0 up; take another"
    assert refusal(table.integer, "yes") == "f.json: yes: True is not an integer from 0 up; take another"
    assert refusal(table.integer, "gone") == "f.json: gone: is missing; take another"
    assert refusal(table.optional_number, "s") == "f.json: s: 'abc' is not a number; take another"
    assert refusal(table.text, "n") == "f.json: n: 3 is not text; take another"
    assert refusal(table.table, "n") == "f.json: n: 3 is not a table; take another"
    assert refusal(table.table("t").integer, "n") == "f.json: t: n: -1 is not an integer from 0 up; take another"


def test_a_message_is_one_line_whatever_it_quotes() -> None:
    assert str(UserError("a\nb\x1b[2J\u202ec\ud800\tü…")) == "a b\\x1b[2J\\u202ec\\ud800 ü…"
    long = str(UserError("file: " + "x" * 10_000 + "; repair it"))
    assert len(long) <= LONGEST_LINE and long.startswith("file: xx") and long.endswith("xx; repair it")
    assert len(one_line("\x00" * 10_000)) <= LONGEST_LINE
    assert len(brief({"a": ["\n"] * 10_000})) <= LONGEST_VALUE
