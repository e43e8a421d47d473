"""Reads files that we did not just write, and may be of any kind, size and content.

Only a regular file is opened, so a FIFO or a device never blocks. Size, nesting and numbers are limited, so no file
fills the memory or overflows the stack of a program that walks what was read. Every fault is a ``UserError`` of one
line that names the file, the field and the value; a file that does not exist is a ``FileNotFoundError``.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import stat
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any

from profiles.errors import SpecError, UserError
from profiles.printable import brief, brief_key

MAX_BYTES = 32 << 20  # the largest of ours names 100 000 shards in 25 MB
MAX_TOML = 1 << 20
MAX_DEPTH = 32  # tables and lists inside each other
MAX_INTEGER = 1 << 64
MAX_COUNT = 1 << 53  # a float holds every smaller one
REPAIR = "repair or remove it"

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a directory",
}
# A key of more than MAX_DEPTH parts, a.b.c…: tomllib needs memory for the square of their number.
_DEEP_KEY = rf"""(?<![\w-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){{{MAX_DEPTH}}}"""


def open_regular(path: str | Path) -> BufferedReader:
    """Open a regular file for reading. Raise ``OSError`` for anything else, without waiting for a writer."""
    return os.fdopen(open_regular_fd(path), "rb")


def open_regular_fd(path: str | Path) -> int:
    """Return a descriptor as ``open_regular`` opens it; ``errno`` is EINVAL for what is no regular file."""
    return open_regular_status(path)[0]


def open_regular_status(path: str | Path) -> tuple[int, os.stat_result]:
    """Return a descriptor as ``open_regular_fd`` does, and the status of the file that is open."""
    try:
        check_regular(path, os.stat(path).st_mode)  # first, because to open a device may already do something
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError:  # a NUL or half of a surrogate pair
        raise OSError(errno.EINVAL, "not a name that a file can have", str(path)) from None
    try:
        status = os.fstat(fd)
        check_regular(path, status.st_mode)
    except OSError:
        os.close(fd)
        raise
    return fd, status


def check_regular(path: str | Path, mode: int) -> None:
    """Raise ``OSError`` unless ``mode``, that of ``stat``, is a regular file's."""
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise OSError(errno.EINVAL, f"is {kind}, not a regular file", str(path))


def read_bytes(path: Path, limit: int = MAX_BYTES, remedy: str = REPAIR) -> bytes:
    """Return the content of a file of at most ``limit`` bytes. Raise ``FileNotFoundError`` and ``UserError``."""
    try:
        with open_regular(path) as file:
            size = min(os.fstat(file.fileno()).st_size, limit)
            content = file.read(size + 1)  # reading takes as much memory as it may return
            if len(content) > size:
                content += file.read(limit + 1 - len(content))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}; {remedy}") from None
    if len(content) > limit:
        raise UserError(f"{path}: is larger than {limit >> 20} MiB; {remedy}")
    return content


def read_text(path: Path, limit: int = MAX_BYTES, remedy: str = REPAIR) -> str:
    """Return the text of a UTF-8 file, without a byte order mark. Raise as ``read_bytes``."""
    try:
        return read_bytes(path, limit, remedy).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text from byte {error.start} on; {remedy}") from None


def read_json(path: Path, limit: int = MAX_BYTES, remedy: str = REPAIR) -> dict[str, Any]:
    """Return the object in a JSON file. Raise as ``read_bytes``."""
    return parse_json(read_text(path, limit, remedy), str(path), remedy)


def parse_json(text: str, source: str, remedy: str = REPAIR) -> dict[str, Any]:
    """Return the object in ``text``. Raise ``UserError`` that begins with ``source``.

    What programs do not agree on is refused: NaN, numbers beyond a float or 64 bits, a key that is given twice.
    """
    try:
        content = _DECODER.decode(text)
        _check_depth(content)
    except RecursionError:
        raise UserError(f"{source}: is nested more than {MAX_DEPTH} deep; {remedy}") from None
    except ValueError as error:
        raise UserError(f"{source}: is not valid JSON: {error}; {remedy}") from None
    if not isinstance(content, dict):
        raise UserError(f"{source}: {brief(content)} is not a JSON object; {remedy}")
    return content


def read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file, which a user wrote. Raise ``FileNotFoundError`` and ``SpecError``."""
    try:
        text = read_text(path, MAX_TOML)
    except UserError as error:
        raise SpecError(str(error)) from None
    return parse_toml(text, str(path))


def parse_toml(text: str, source: str) -> dict[str, Any]:
    """Return the content of TOML ``text``. Raise ``SpecError`` that begins with ``source``."""
    import tomllib

    try:
        if re.search(_DEEP_KEY, text):
            raise RecursionError
        content = tomllib.loads(text)
        _check_depth(content)
    except RecursionError:
        raise SpecError(f"{source}: is nested more than {MAX_DEPTH} deep; {REPAIR}") from None
    except ValueError as error:  # TOMLDecodeError, an integer with too many digits, a date that does not exist
        raise SpecError(f"{source}: not valid TOML: {error}; {REPAIR}") from None
    return content


def _check_depth(content: Any) -> None:
    """Raise ``RecursionError`` for deeper nesting, ``ValueError`` for an integer of more than 64 bits."""
    level = [content]
    for _ in range(MAX_DEPTH + 1):
        if any(type(value) is int and abs(value) > MAX_INTEGER for value in level):
            raise ValueError("an integer has more than 64 bits")
        inner = [value.values() if type(value) is dict else value for value in level if type(value) in (dict, list)]
        if not inner:
            return
        level = [value for values in inner for value in values]
    raise RecursionError


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"{brief(twice)} is given twice")
    return found


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{brief(text)} is too large for a number")
    return value


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_float, parse_constant=_constant)


class Table:
    """The fields of a table in a file, each checked when it is read.

    ``source`` names the file in messages, and within it the table, ``remedy`` says what to do about a fault.
    """

    def __init__(self, content: Mapping[str, Any], source: str, remedy: str = REPAIR) -> None:
        self.content = content
        self._source = source
        self._remedy = remedy

    def integer(self, key: str, low: int = 0) -> int:
        """Return an integer from ``low`` up that a float can hold. Raise ``UserError``."""
        value = self.content.get(key)
        if type(value) is not int or not low <= value <= MAX_COUNT:  # bool is a subclass of int, but not a count
            raise self.fault(key, f"an integer from {low} up")
        return value

    def optional_number(self, key: str) -> float | None:
        """Return a number, or None where there is none. Raise ``UserError``."""
        value = self.content.get(key)
        if value is not None and type(value) not in (int, float):
            raise self.fault(key, "a number")
        return value

    def integers(self, key: str) -> tuple[int, ...]:
        """Return a list of integers from 0 up. Raise ``UserError``."""
        values = self.content.get(key)
        if not isinstance(values, list) or not all(type(value) is int and 0 <= value <= MAX_COUNT for value in values):
            raise self.fault(key, "a list of integers from 0 up")
        return tuple(values)

    def text(self, key: str) -> str:
        """Return a string. Raise ``UserError``."""
        value = self.content.get(key)
        if not isinstance(value, str):
            raise self.fault(key, "text")
        return value

    def table(self, key: str) -> Table:
        """Return a table within this one. Raise ``UserError``."""
        value = self.content.get(key)
        if not isinstance(value, dict):
            raise self.fault(key, "a table")
        return Table(value, f"{self._source}: {brief_key(key)}", self._remedy)

    def fault(self, key: str, wanted: str) -> UserError:
        """Return the error for a field that is missing or not what is ``wanted``."""
        is_not = f"{brief(self.content[key])} is not {wanted}" if key in self.content else "is missing"
        return UserError(f"{self._source}: {brief_key(key)}: {is_not}; {self._remedy}")
