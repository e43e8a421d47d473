"""Finds the keys in which the specs of several runs differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.host.files import read_json
from profiles.printable import brief_key, one_line
from tui.app.state.data_read import data_read

if TYPE_CHECKING:
    from engine.events.run_dir import RunDir

ABSENT = "–"
_START_KEYS = ("resume", "init_from")  # how a run was started; not part of its spec


class Edited(NamedTuple):
    """A value that was edited while the run was active: as launched, and now."""

    launched: Any
    now: Any


def flat_spec(run: RunDir) -> dict[str, Any]:
    """Return ``{"batch.micro": 4, …}``, with ``Edited`` values; empty if ``spec.json`` is missing or damaged.

    The file is not validated against this version's keys, so that runs of other versions can be compared.
    """
    content = read_json(run.path / "spec.json")
    flat: dict[str, Any] = {}
    for table, inner in content.items():
        if table == "start":
            flat |= {f"start.{key}": inner.get(key) for key in _START_KEYS} if isinstance(inner, dict) else {}
        elif isinstance(inner, dict):
            flat |= {brief_key(f"{table}.{key}"): value for key, value in inner.items()}
        elif table not in ("description", "resolved"):
            flat[brief_key(table)] = inner
    live = run.current_state().live or {}
    return flat | {key: Edited(flat[key], live[key]) for key in live if key in flat and flat[key] != live[key]}


def compared_spec(run: RunDir) -> dict[str, Any]:
    """Return the flat spec and which data the run has read; empty if ``spec.json`` is missing or damaged."""
    spec = flat_spec(run)
    return spec | data_read(run) if spec else {}


def differences(specs: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return, for each key that differs, its value in each spec (None if absent), in the order of the specs."""
    keys = dict.fromkeys(key for spec in specs for key in spec)
    found = {key: [spec.get(key) for spec in specs] for key in keys}
    return {key: values for key, values in found.items() if any(value != values[0] for value in values)}


def group_by_value(values: Sequence[Any], letters: Sequence[str]) -> list[tuple[str, str]]:
    """Return ``[("AC", "0.003"), ("B", "0.001")]``: each value after the letters of the runs that have it."""
    groups: dict[str, str] = {}
    for letter, value in zip(letters, values, strict=True):
        text = value_text(value)
        groups[text] = groups.get(text, "") + letter
    return [(members, text) for text, members in groups.items()]


def value_text(value: Any) -> str:
    """Return a value of a flat spec on one line; an edited one as launched and now."""
    if isinstance(value, Edited):
        return f"{value_text(value.launched)} → {value_text(value.now)}"
    if value is None or value == "":
        return ABSENT
    if isinstance(value, list):
        return ", ".join(map(value_text, value)) or ABSENT
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else one_line(str(value))
