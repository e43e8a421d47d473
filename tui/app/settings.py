"""Loads and stores the app's settings: ``settings.toml`` beside ``hooks.toml``.

The user may edit the file too: the app replaces single lines of it and keeps comments and everything else. An invalid
or unknown entry is reported, and the default is used.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from profiles.errors import SpecError, UserError
from profiles.printable import LONGEST_KEY, brief, brief_key, one_line
from profiles.reader import MAX_TOML, parse_toml, read_text
from tui.app import custom_keys
from tui.app.actions.action import Keys
from tui.app.themes import THEMES

FILE = "settings.toml"
SLOWEST = 60.0  # seconds between two draws of the charts
FASTEST = 0.5
LOW_NUMBERS, LOW_CHARTS = 3.0, 6.0  # seconds between two draws with low bandwidth: less than half the bytes


@dataclass(frozen=True, slots=True)
class Settings:
    """``refresh``: seconds between two draws of the charts. ``keys``: the user's own keys, by the action's id.

    ``panes``: the metrics whose panes the monitor shows behind those of its first page; None for the usual ones.
    """

    theme: str = THEMES[0].name
    refresh: float = 1.0
    low_bandwidth: bool = False
    bell: bool = True
    panes: tuple[str, ...] | None = None
    keys: Keys = field(default_factory=dict)

    @property
    def number_every(self) -> float:
        """Seconds between two draws of the numbers."""
        return LOW_NUMBERS if self.low_bandwidth else min(self.refresh, 1.0)

    @property
    def chart_every(self) -> float:
        """Seconds between two draws of the charts."""
        return max(self.refresh, LOW_CHARTS) if self.low_bandwidth else self.refresh


def _theme(value: Any) -> str:
    names = [theme.name for theme in THEMES]
    if value not in names:
        raise SpecError(f"{brief(value)} is not one of {', '.join(names)}")
    return str(value)


def _refresh(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not FASTEST <= value <= SLOWEST:
        raise SpecError(f"{brief(value)} is not in {FASTEST:g}..{SLOWEST:g} seconds")
    return float(value)


def _switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise SpecError(f"{brief(value)} is not true or false")
    return value


def _panes(value: Any) -> tuple[str, ...]:
    from tui.app.state.pane_metrics import PANE_METRICS

    names = value.split() if isinstance(value, str) else []
    unknown = [name for name in names if name not in PANE_METRICS]
    if unknown or not isinstance(value, str):
        wrong = brief(unknown[0] if unknown else value)
        raise SpecError(f'{wrong} is not one of {", ".join(PANE_METRICS)}; write panes = "lr grad_norm"')
    return tuple(dict.fromkeys(names))


_READERS: dict[str, Callable[[Any], Any]] = {
    "theme": _theme,
    "refresh": _refresh,
    "low_bandwidth": _switch,
    "bell": _switch,
    "panes": _panes,
}


def settings_path() -> Path:
    from engine.runs.hooks import hooks_path

    return hooks_path().with_name(FILE)


def load() -> tuple[Settings, list[str]]:
    """Return the settings, and a line for each refused entry: file, key, value and how to fix it."""
    path = settings_path()
    try:
        raw = parse_toml(_read(path), str(path))
    except SpecError as error:
        return Settings(), [str(error)]
    settings, errors = Settings(), []
    for key, value in raw.items():
        try:
            if key == "keys":
                continue
            if key not in _READERS:
                near = get_close_matches(key[:LONGEST_KEY], [*_READERS, "keys"], 1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join([*_READERS, 'keys'])}"
                raise SpecError(f"{brief(value)}: unknown entry; {hint}")
            settings = replace(settings, **{key: _READERS[key](value)})
        except SpecError as error:
            errors.append(one_line(f"{path}: {brief_key(key)}: {error}"))
    own, refused = _keys(raw.get("keys", {}))
    errors += [one_line(f"{path}: {brief_key(key)}: {why}") for key, why in refused.items()]
    return replace(settings, keys=own), errors


def _keys(table: Any) -> tuple[Keys, dict[str, str]]:
    if not isinstance(table, dict):
        return {}, {"keys": f'{brief(table)} is not a table; write [keys] and maximize = "Z"'}
    texts = {id: text for id, text in table.items() if isinstance(text, str)}
    own, refused = custom_keys.checked(texts)
    refused |= {
        id: f'{brief(value)} is not text; write {brief_key(id)} = "Z"' for id, value in table.items() if id not in texts
    }
    return own, {f"keys.{id}": why for id, why in refused.items()}


def _read(path: Path) -> str:
    try:
        return read_text(path, MAX_TOML)
    except FileNotFoundError:
        return ""
    except UserError as error:
        raise SpecError(str(error)) from None


def store(key: str, value: str | float | bool | None, table: str = "") -> None:
    """Store one entry, or remove it with None. Raises ``UserError`` if it cannot be written."""
    from engine.host.files import write_atomic

    path = settings_path()
    text = _read(path)
    before = parse_toml(text, str(path))
    after = with_entry(text, key, value, table)
    try:
        correct = parse_toml(after, str(path)) == _with(before, key, value, table)
    except SpecError:
        correct = False
    if not correct:
        name = f"{table}.{key}" if table else key
        raise SpecError(f"{path}: {name}: the app cannot edit this entry as it is written; edit the file yourself")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A symbolic link stays one.
        write_atomic(Path(os.path.realpath(path)), after.encode())
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}; the change lasts until the app ends") from None


def _with(content: Mapping[str, Any], key: str, value: Any, table: str) -> dict[str, Any]:
    if table:
        inner = content.get(table, {})
        return {**content, table: _with(inner if isinstance(inner, dict) else {}, key, value, "")}
    rest = {name: one for name, one in content.items() if name != key}
    return rest if value is None else {**rest, key: value}


def with_entry(text: str, key: str, value: str | float | bool | None, table: str = "") -> str:
    """Return TOML ``text`` with the line of ``key`` at the top or in ``[table]`` changed, added or removed."""
    lines = text.splitlines()
    headers = [i for i, line in enumerate(lines) if line.lstrip().startswith("[")]
    if table:
        start = next((i + 1 for i in headers if re.match(rf"\s*\[\s*{table}\s*\]", lines[i])), None)
        if start is None:
            lines += ["", f"[{table}]"] if lines else [f"[{table}]"]
            start = len(lines)
    else:
        start = 0
    end = next((i for i in headers if i >= start), len(lines))
    index = next((i for i in range(start, end) if re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", lines[i])), None)
    line = [] if value is None else [f"{key} = {_toml(value)}"]
    if index is not None:
        lines[index : index + 1] = line
    else:
        while end > start and not lines[end - 1].strip():  # keep the empty line before the next table
            end -= 1
        lines[end:end] = line
    return "\n".join(lines) + "\n"


def _toml(value: str | float | bool) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else f"{value:g}"
