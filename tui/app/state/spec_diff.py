"""What differs in the specs of some runs: the keys that are not the same in all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engine.host.files import read_json

if TYPE_CHECKING:
    from engine.events.run_dir import RunDir

ABSENT = "–"
_ORIGIN = ("resume", "init_from")  # of how a run was started, what is no part of its spec


def flat_spec(run: RunDir) -> dict[str, Any]:
    """``{"batch.micro": 4, …}`` as it was launched; empty where ``spec.json`` is missing or damaged.

    Read as it stands, not held against this version's keys: a run of another version may be compared too.
    """
    content = read_json(run.path / "spec.json")
    flat: dict[str, Any] = {}
    for table, inner in content.items():
        if table == "start":
            flat |= {f"start.{key}": inner.get(key) for key in _ORIGIN} if isinstance(inner, dict) else {}
        elif isinstance(inner, dict):
            flat |= {f"{table}.{key}": value for key, value in inner.items()}
        elif table != "description":
            flat[table] = inner
    return flat


def differences(specs: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Key → its value in each spec (None where it has none), for the keys that differ, in the specs' order."""
    keys = dict.fromkeys(key for spec in specs for key in spec)
    found = {key: [spec.get(key) for spec in specs] for key in keys}
    return {key: values for key, values in found.items() if any(value != values[0] for value in values)}


def group_by_value(values: Sequence[Any], letters: Sequence[str]) -> list[tuple[str, str]]:
    """``[("AC", "0.003"), ("B", "0.001")]``: the letters of the runs that have a value, in the order of the runs."""
    groups: dict[str, str] = {}
    for letter, value in zip(letters, values, strict=True):
        text = _text(value)
        groups[text] = groups.get(text, "") + letter
    return [(held_by, text) for text, held_by in groups.items()]


def _text(value: Any) -> str:
    if value is None or value == "":
        return ABSENT
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)
