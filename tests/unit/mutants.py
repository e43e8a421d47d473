"""Describes a format that the program parses, and lets hypothesis change a valid file of it.

A mutant is a valid file with some fields deleted, renamed, nested or given another value, or with changed bytes;
sometimes it is no such file at all.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

Dump = Callable[[Any], bytes]


@dataclass(frozen=True, repr=False)
class Format:
    """``read`` must return, or raise ``UserError``; ``messages``: it returns lines for the user."""

    path: Path
    valid: dict[str, Any]
    dump: Dump
    read: Callable[[], Any]
    messages: bool = False


def dump_json(content: Any) -> bytes:
    return json.dumps(content).encode()


def dump_toml(content: Any) -> bytes:
    """Write tables of the first level as such, all others inline. What TOML does not have becomes something like it."""
    if not isinstance(content, dict):
        return _toml(content).encode()
    plain = [f"{_key(key)} = {_toml(value)}" for key, value in content.items() if not isinstance(value, dict)]
    for table, inner in content.items():
        if isinstance(inner, dict):
            plain += [f"[{_key(table)}]", *(f"{_key(key)} = {_toml(value)}" for key, value in inner.items())]
    return "\n".join(plain).encode("utf-8", "surrogatepass")


def _key(key: str) -> str:
    return key if key.isascii() and key.isidentifier() else json.dumps(key)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)} = {_toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, float):
        return repr(value)  # inf and nan are TOML
    return json.dumps(value)


def deep(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


JUNK = [
    *(None, True, False, 0, -1, 1, 2**31, 2**53, 2**63, 2**64 + 1, -(2**63), 10**400),
    *(0.5, -0.0, 1e308, 5e-324, float("inf"), float("nan")),
    *("", "x" * 5000, "a\nb\x1b[2J", "\ud800", "\udcff", "a\0b", "\u202e", "../x", "-x", "/", ".", "latest", "7", "é"),
    *([], {}, [[]], [None], {"": 0}, deep(20), deep(31), deep(40), deep(100), ["x"] * 300),
]
KEYS = ["", "x\ny", "\x1b", "a.b", "__proto__", "k" * 3000, "é", "start", "name"]
RAW = [b"", b"\0" * 64, b"[" * 9000, b'{"a":' * 9000, b"9" * 9000, b"a." * 9000, b"\xff\xfe{}", b"\xef\xbb\xbf{}"]


def mutants(form: Format) -> SearchStrategy[bytes]:
    """Valid files with up to three fields deleted, renamed, nested or replaced, or with changed bytes; or no such file.

    The simplest is the valid file itself, so a failing one shrinks to the few changes that matter.
    """
    edits = st.lists(EDITS, max_size=3).map(lambda edits: form.dump(_edited(form.valid, edits)))
    at = st.integers(0, 1 << 16)
    byte = st.builds(_with_other_bit, edits, at, st.integers(0, 7))
    cut = st.builds(lambda data, end: data[: end % (len(data) + 1)], edits, at)
    twice = st.builds(
        lambda data, end, start: data[: end % (len(data) + 1)] + data[start % (len(data) + 1) :], edits, at, at
    )
    return st.one_of(edits, edits, edits, byte, cut, twice, st.sampled_from(RAW) | st.binary(max_size=64))


@dataclass(frozen=True)
class Edit:
    """A change of one place, counted among all of a file."""

    place: int
    what: str
    key: str
    junk: Any


WHAT = ("replace", "replace", "replace", "delete", "rename", "add", "list", "table")
DRAWN = (
    *(st.integers(-9, 99), st.integers(0, 1 << 60), st.floats(-1, 1e6)),
    st.characters(exclude_categories=()).map(lambda character: 3 * character),
)
EDITS = st.builds(
    Edit,
    *(st.integers(0, 399), st.sampled_from(WHAT), st.sampled_from(KEYS)),
    st.one_of(st.sampled_from(range(len(JUNK))).map(lambda number: JUNK[number]), *DRAWN),
)


def _with_other_bit(data: bytes, at: int, bit: int) -> bytes:
    at %= max(len(data), 1)
    return data[:at] + bytes(byte ^ 1 << bit for byte in data[at : at + 1]) + data[at + 1 :]


def _edited(content: Any, edits: list[Edit]) -> Any:
    content = copy.deepcopy(content)
    for edit in edits:
        places = list(_places(content))
        if not places:
            return copy.deepcopy(edit.junk)
        holder, key = places[edit.place % len(places)]
        match edit.what:
            case "delete":
                del holder[key]
            case "rename" if isinstance(holder, dict):
                holder[edit.key] = holder.pop(key)
            case "add" if isinstance(holder, dict):
                holder[edit.key] = copy.deepcopy(edit.junk)
            case "list":
                holder[key] = [holder[key]]
            case "table":
                holder[key] = {"a": holder[key]}
            case _:
                holder[key] = copy.deepcopy(edit.junk)
    return content


def _places(content: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    if depth < 6 and isinstance(content, (dict, list)):
        for key in list(content)[:40] if isinstance(content, dict) else range(min(len(content), 8)):
            yield content, key
            yield from _places(content[key], depth + 1)
