"""Finds and loads profiles (built-in and user TOML files), and detects the default one for this machine."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from profiles.errors import SpecError
from profiles.nvml import visible_device
from profiles.optim import NOW
from profiles.paths import user_dir
from profiles.printable import LONGEST_KEY, brief
from profiles.reader import parse_toml, read_toml
from profiles.spec import RunSpec, check_table, check_value, known_keys, suggest_key
from profiles.tables import BACKENDS

BUILTIN = Path(__file__).parent / "builtin"
MAX_CHAIN = 16  # profiles that extend one another
BUILTIN_ORDER = ("cpu_demo", "pretrain_5080", "longctx_5090", "mac_m4_pro", "gpu_fast")


# What TOML does not have as a number, or not in this size: .001, 1., 007, 99999999999999999999.
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?", re.ASCII | re.IGNORECASE)


def user_folder() -> Path:
    """Return the folder of the user's profiles."""
    return user_dir("XDG_CONFIG_HOME", "~/.config") / "mla-tui" / "profiles"


def names() -> list[str]:
    """Return the names of all profiles, built-in ones first."""
    own = sorted(p.stem for p in user_folder().glob("*.toml"))
    return [*BUILTIN_ORDER, *(name for name in own if name not in BUILTIN_ORDER)]


def detect_profile() -> str:
    """Return the default profile of this machine: for CUDA, for Apple Silicon, else for a CPU."""
    if visible_device() is not None:
        return "pretrain_5080"
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return "mac_m4_pro"
    return "cpu_demo"


def load(name: str, overrides: Sequence[str] = ()) -> RunSpec:
    """Load the profile ``name`` (or a ``.toml`` path) and apply ``key=value`` overrides. Raise ``SpecError``."""
    path, description, flat = _flattened(name, overrides)
    return RunSpec.build(path.name if not overrides else f"{path.name} with -s", path.stem, description, flat)


def given_keys(name: str, overrides: Sequence[str] = ()) -> set[str]:
    """Return the dotted keys that the profile (or what it extends) or an override sets. Raise ``SpecError``."""
    return set(_flattened(name, overrides)[2])


def _flattened(name: str, overrides: Sequence[str]) -> tuple[Path, str, dict[str, Any]]:
    path = _find(name)
    layers, given = _read(path, seen=()), [dict([parse_override(text)]) for text in overrides]
    flat = _merged(layers, given)
    backend = str(flat.get("launch.backend"))
    if any(layer.for_backend.get(backend) for layer in layers):
        flat = _merged(layers, given, backend)
    return path, next((layer.description for layer in reversed(layers) if layer.description), ""), flat


@dataclass(frozen=True, slots=True)
class _Layer:
    """One file of a profile: its keys, and by backend those that hold only with that backend."""

    description: str
    keys: dict[str, Any]
    for_backend: dict[str, dict[str, Any]]


def _merged(layers: Sequence[_Layer], given: Sequence[dict[str, Any]], backend: str = "") -> dict[str, Any]:
    """Return the keys of all files, the base first, each with its keys for ``backend``; ``given`` overrides them."""
    flat: dict[str, Any] = {}
    for upper in [keys for layer in layers for keys in (layer.keys, layer.for_backend.get(backend, {}))]:
        _merge(flat, upper)
    for upper in given:
        _merge(flat, upper)
    return flat


def with_overrides(spec: RunSpec, overrides: Sequence[str]) -> RunSpec:
    """Return ``spec`` with ``key=value`` overrides. Raise ``SpecError``.

    For another backend, what a launch resolved is "auto" again: the earlier backend's choice may not exist there.
    """
    content = spec.to_dict()
    flat = check_table(spec.profile, {k: v for k, v in content.items() if isinstance(v, dict)})
    given = [parse_override(text) for text in overrides]
    resolved = [key for key in spec.resolved if key not in dict(given)]
    if dict(given).get("launch.backend", spec.launch.backend) != spec.launch.backend:
        flat |= dict.fromkeys(resolved, "auto")
        resolved = []
    for key, value in given:
        _merge(flat, {key: value})
    changed = RunSpec.build(f"{spec.profile} with -s", spec.profile, spec.description, flat)
    return replace(changed, resolved=tuple(resolved))


def parse_override(text: str, source: str = "-s") -> tuple[str, Any]:
    """Parse ``"batch.micro=4"``, or ``"micro=4"`` if only one table has the key, to ``("batch.micro", 4)``.

    Raise ``SpecError`` that begins with ``source``: where the text comes from.
    """
    key, raw = _split(text, source)
    try:
        parsed = parse_toml(f"value = {raw}", f"{source} {key}")
    except SpecError:
        parsed = {}
    if len(parsed) == 1:
        return key, check_value(source, key, parsed["value"])
    try:
        return key, check_value(source, key, raw)  # not TOML: a string without quotes, as in -s data.root=shards
    except SpecError:
        if not _NUMBER.fullmatch(raw):
            raise
    return key, check_value(source, key, float(raw))


def check_once(texts: Sequence[str], source: str = "-s") -> None:
    """Raise ``SpecError`` where two of the ``key=value`` set one key: one value would be dropped without a word."""
    found: dict[str, str] = {}
    for text in texts:
        key = _split(text, source)[0]
        if key in found:
            both = f"{brief(found[key])} and {brief(text)}"
            raise SpecError(f"{source} {key}: is given twice, as {both}; give one of them")
        found[key] = text


def check_none_replaced(texts: Sequence[str]) -> None:
    """Raise ``SpecError`` where one of the ``-s`` replaces an earlier one: they say the same thing in two ways."""
    flat: dict[str, Any] = {}
    for text in texts:
        before = {**flat}
        _merge(flat, {_split(text, "-s")[0]: text})
        if dropped := next((earlier for key, earlier in before.items() if key not in flat), ""):
            raise SpecError(
                f"-s {text}: would replace -s {dropped}, because one follows from the other; give one of them"
            )


def _split(text: str, source: str) -> tuple[str, str]:
    """Return the dotted key of ``key=value`` and its value as written. Raise ``SpecError``."""
    key, equals, raw = (part.strip() for part in text.partition("="))
    if not equals or not key:
        raise SpecError(f"{source} {text}: write key=value, for example batch.micro=4")
    if "." in key:
        return key, raw
    full = [k for k in known_keys() if k.partition(".")[2] == key]
    if not full:
        raise SpecError(f"{source} {key}: unknown key{suggest_key(key, bare=True)}")
    if len(full) > 1:
        raise SpecError(f"{source} {key}: is ambiguous; write {' or '.join(full)}")
    return full[0], raw


def parse_edit(text: str, source: str = "set") -> tuple[str, Any]:
    """Parse a change of an active run as ``parse_override`` does, and ``"decay=now"``. Raise ``SpecError``."""
    key, _, raw = text.partition("=")
    if key.strip() in ("decay", "optim.decay") and raw.strip() == NOW:
        return "optim.decay", NOW
    return parse_override(text, source)


def _find(name: str, extended_by: Path | None = None) -> Path:
    """Return the file of a profile. A user's file may have the name of the built-in profile that it extends."""
    label = f"{extended_by.name}: extends: {brief(name)}" if extended_by else f"profile {brief(name)}"
    if name.endswith(".toml"):
        path = Path(name)
        if not os.path.exists(path):  # unlike Path.exists, also False for what no path can be
            raise SpecError(f"{label}: no such file")
        return path
    for folder in (user_folder(), BUILTIN):
        path = folder / f"{name}.toml"
        if os.path.exists(path) and not (extended_by and path.samefile(extended_by)):
            return path
    if extended_by and name == extended_by.stem:
        raise SpecError(f"{extended_by.name}: extends: {name} → {name} is a cycle")
    import difflib

    near = difflib.get_close_matches(name[:LONGEST_KEY], names(), 1)
    hint = f"did you mean {near[0]}?" if near else f"the profiles are {', '.join(names())}"
    raise SpecError(f"{label}: unknown; {hint}")


def _read(path: Path, seen: tuple[Path, ...]) -> list[_Layer]:
    """Return the file at ``path`` and those that it extends, the base first."""
    if len(seen) >= MAX_CHAIN:
        raise SpecError(f"{path.name}: extends: {MAX_CHAIN} profiles extend one another; write fewer")
    if path in seen:
        raise SpecError(f"{path.name}: extends: {' → '.join(p.stem for p in (*seen, path))} is a cycle")
    try:
        raw = read_toml(path)
    except FileNotFoundError:
        raise SpecError(f"{path}: no such file") from None
    description = raw.pop("description", "")
    if not isinstance(description, str):
        raise SpecError(f"{path.name}: description: {brief(description)} is not a string")
    base = raw.pop("extends", None)
    below: list[_Layer] = []
    if base is not None:
        if not isinstance(base, str):
            raise SpecError(f"{path.name}: extends: {brief(base)} is not the name of a profile")
        below = _read(_find(base, extended_by=path), (*seen, path))
    tables = {name: raw.pop(name) for name in BACKENDS if name in raw}
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise SpecError(
                f"{path.name}: {name}: {brief(table)} is not a table; write [{name}.batch] with its keys below"
            )
    for_backend = {name: check_table(f"{path.name}: {name}", table) for name, table in tables.items()}
    return [*below, _Layer(description, check_table(path.name, raw), for_backend)]


def _merge(flat: dict[str, Any], upper: dict[str, Any]) -> None:
    """Merge ``upper`` into ``flat``; what expresses one thing is replaced as a whole.

    That is ``accum`` and ``sequences``, ``phase`` and ``sources`` of the data, and the fields of a model and its name.
    """
    if "batch.accum" in upper:
        flat.pop("batch.sequences", None)
    if "batch.sequences" in upper:
        flat.pop("batch.accum", None)
    if "data.sources" in upper:
        flat.pop("data.phase", None)
    if "data.phase" in upper:
        flat.pop("data.sources", None)
    if "model.name" in upper:
        for key in [k for k in flat if k.startswith("model.")]:
            del flat[key]
    flat.update(upper)
