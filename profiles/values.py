"""Checks the values of settings: numbers, texts, weights and lists of names. Each raises ``SpecError``."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any

from profiles.errors import SpecError
from profiles.names import check_below, check_hosts
from profiles.names import check_text as check_printable
from profiles.printable import brief, brief_key

_TEXT_CHECKS = {"data.phase": check_below, "launch.hosts": check_hosts}
_MOST_SOURCES, _WEIGHTS = 64, (1e-6, 1e6)
_MOST_TEXTS, _LONGEST_TEXT = 16, 4096


def check_number(source: str, key: str, value: Any, kind: type, span: tuple[float, float]) -> Any:
    low, high = span
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise SpecError(f"{source}: {key}: {brief(value)} is not a number")
    # is_integer also refuses infinity and NaN, for which int() would raise.
    if kind is int and isinstance(value, float) and not value.is_integer():
        raise SpecError(f"{source}: {key}: {brief(value)} is not a whole number")
    if not low <= value <= high:
        allowed = f"{low}..{high}" if kind is int else f"{low:g}..{high:g}"
        raise SpecError(f"{source}: {key}: {brief(value)} is not in {allowed}")
    return kind(value)


def check_text(source: str, key: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise SpecError(f"{source}: {key}: {brief(value)} is not a non-empty string")
    return _TEXT_CHECKS.get(key, check_printable)(f"{source}: {key}", check_printable(f"{source}: {key}", value))


def check_weights(source: str, key: str, value: Any) -> dict[str, float]:
    """Return phases and their weights, by name, so that their order in a file changes nothing."""
    if not isinstance(value, Mapping) or not 0 < len(value) <= _MOST_SOURCES:
        example = "{web = 0.7, code = 0.3}"
        raise SpecError(
            f"{source}: {key}: {brief(value)} is not a table of up to {_MOST_SOURCES} weights; write {example}"
        )
    weights = {}
    for phase in sorted(value):
        name = check_below(f"{source}: {key}", check_text(source, key, phase))
        if name != posixpath.normpath(name) or name == ".":
            raise SpecError(f"{source}: {key}: {brief(name)} is not the name of a folder in data.root")
        weights[name] = check_number(source, f"{key}.{brief_key(name)}", value[phase], float, _WEIGHTS)
    return weights


def check_texts(source: str, key: str, value: Any) -> tuple[str, ...]:
    """Return a list of texts, which may be empty and may have several lines."""
    if not isinstance(value, (list, tuple)) or not 0 < len(value) <= _MOST_TEXTS:
        raise SpecError(
            f'{source}: {key}: {brief(value)} is not a list of 1 to {_MOST_TEXTS} texts; write ["Once upon a time"]'
        )
    for text in value:
        if not isinstance(text, str) or len(text) > _LONGEST_TEXT or not is_utf8(text):
            raise SpecError(f"{source}: {key}: {brief(text)} is not text of up to {_LONGEST_TEXT} characters in UTF-8")
    return tuple(value)


def is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_names(source: str, key: str, value: Any, known: tuple[str, ...]) -> tuple[str, ...]:
    """Return a list of some of the ``known`` names, each once."""
    if not isinstance(value, (list, tuple)) or not all(name in known for name in value) or len({*value}) < len(value):
        example = ", ".join(f'"{name}"' for name in known)
        raise SpecError(f"{source}: {key}: {brief(value)} is not a list of some of [{example}], each once; [] for none")
    return tuple(value)
