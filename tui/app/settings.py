"""What a person has set for the app, in ``settings.toml`` beside ``hooks.toml``.

The file is theirs: a change from the app replaces one line of it and leaves comments and everything else alone. What is
damaged or unknown in it is told, and the app goes on with the default.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from profiles.errors import SpecError, UserError
from tui.app import custom_keys
from tui.app.actions.action import Keys
from tui.app.themes import THEMES

FILE = "settings.toml"
SLOWEST = 60.0  # seconds between two paints of a chart
FASTEST = 0.5
LOW_NUMBERS, LOW_CHARTS = 3.0, 6.0  # seconds between two paints where bytes are dear: less than half of them


@dataclass(frozen=True, slots=True)
class Settings:
    """``refresh``: seconds between two paints of the charts. ``keys``: an action's own keys, by its id."""

    theme: str = THEMES[0].name
    refresh: float = 1.0
    low_bandwidth: bool = False
    bell: bool = True
    keys: Keys = field(default_factory=dict)

    @property
    def number_every(self) -> float:
        """Seconds between two paints of numbers."""
        return LOW_NUMBERS if self.low_bandwidth else min(self.refresh, 1.0)

    @property
    def chart_every(self) -> float:
        """Seconds between two paints of charts."""
        return max(self.refresh, LOW_CHARTS) if self.low_bandwidth else self.refresh


def _theme(value: Any) -> str:
    names = [theme.name for theme in THEMES]
    if value not in names:
        raise SpecError(f"{value!r} is not one of {', '.join(names)}")
    return str(value)


def _refresh(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not FASTEST <= value <= SLOWEST:
        raise SpecError(f"{value!r} is not in {FASTEST:g}..{SLOWEST:g} seconds")
    return float(value)


def _switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise SpecError(f"{value!r} is not true or false")
    return value


_READERS: dict[str, Callable[[Any], Any]] = {
    "theme": _theme,
    "refresh": _refresh,
    "low_bandwidth": _switch,
    "bell": _switch,
}


def settings_path() -> Path:
    from engine.runs.hooks import hooks_path

    return hooks_path().with_name(FILE)


def load() -> tuple[Settings, list[str]]:
    """The settings, and a line for each entry that is not taken: file, key, value, way out."""
    path = settings_path()
    try:
        raw = tomllib.loads(_read(path))
    except SpecError as error:
        return Settings(), [str(error)]
    except ValueError as error:
        return Settings(), [f"{path}: not valid TOML: {error}; mend or remove the file"]
    settings, trouble = Settings(), []
    for key, value in raw.items():
        try:
            if key == "keys":
                continue
            if key not in _READERS:
                near = get_close_matches(key, [*_READERS, "keys"], 1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join([*_READERS, 'keys'])}"
                raise SpecError(f"{value!r}: unknown entry; {hint}")
            settings = replace(settings, **{key: _READERS[key](value)})
        except SpecError as error:
            trouble.append(f"{path}: {key}: {error}")
    own, refused = _keys(raw.get("keys", {}))
    trouble += [f"{path}: {key}: {why}" for key, why in refused.items()]
    return replace(settings, keys=own), trouble


def _keys(table: Any) -> tuple[Keys, dict[str, str]]:
    if not isinstance(table, dict):
        return {}, {"keys": f'{table!r} is not a table; write [keys] and zoom = "Z"'}
    texts = {id: text for id, text in table.items() if isinstance(text, str)}
    own, refused = custom_keys.checked(texts)
    refused |= {id: f'{value!r} is not text; write {id} = "Z"' for id, value in table.items() if id not in texts}
    return own, {f"keys.{id}": why for id, why in refused.items()}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise SpecError(f"{path}: cannot be read: {why}; mend or remove the file") from None


def store(key: str, value: str | float | bool | None, table: str = "") -> None:
    """Write one entry down, or take it out with None. Raises ``UserError`` where it cannot be written."""
    from engine.host.files import write_atomic

    path = settings_path()
    text = _read(path)
    try:
        before = tomllib.loads(text)
    except ValueError as error:
        raise SpecError(f"{path}: not valid TOML, so it is left alone: {error}; mend or remove the file") from None
    wanted = _with(before, key, value, table)
    changed = edited(text, key, value, table)
    try:
        done = tomllib.loads(changed) == wanted
    except ValueError:
        done = False
    if not done:
        raise SpecError(f"{path}: {table + '.' if table else ''}{key}: stands in a form only you can change")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A link to a file kept elsewhere stays a link.
        write_atomic(Path(os.path.realpath(path)), changed.encode())
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}; the change lasts until you leave") from None


def _with(content: Mapping[str, Any], key: str, value: Any, table: str) -> dict[str, Any]:
    if table:
        inner = content.get(table, {})
        return {**content, table: _with(inner if isinstance(inner, dict) else {}, key, value, "")}
    rest = {name: held for name, held in content.items() if name != key}
    return rest if value is None else {**rest, key: value}


def edited(text: str, key: str, value: str | float | bool | None, table: str = "") -> str:
    """TOML ``text`` with one line changed, added or taken out: that of ``key`` at the top or in ``[table]``."""
    lines = text.splitlines()
    heads = [i for i, line in enumerate(lines) if line.lstrip().startswith("[")]
    if table:
        start = next((i + 1 for i in heads if re.match(rf"\s*\[\s*{table}\s*\]", lines[i])), None)
        if start is None:
            lines += ["", f"[{table}]"] if lines else [f"[{table}]"]
            start = len(lines)
    else:
        start = 0
    end = next((i for i in heads if i >= start), len(lines))
    place = next((i for i in range(start, end) if re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", lines[i])), None)
    line = [] if value is None else [f"{key} = {_toml(value)}"]
    if place is not None:
        lines[place : place + 1] = line
    else:
        while end > start and not lines[end - 1].strip():  # an empty line parts this from what follows
            end -= 1
        lines[end:end] = line
    return "\n".join(lines) + "\n"


def _toml(value: str | float | bool) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else f"{value:g}"
