"""Writes a profile of the user: what it extends and what it changes, with comments."""

from __future__ import annotations

import contextlib
import json
import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from profiles.errors import SpecError, UserError
from profiles.names import check_name
from profiles.printable import one_line
from profiles.registry import BUILTIN_ORDER, user_folder

WIDTH = 79  # cells of a line, so that none is wrapped in the smallest usual terminal
NOTES = {
    "batch.micro": "sequences at once; a step has as many as before, whatever this is",
    "memory.strategy": "states of the optimizer: device, states8bit, offload",
    "memory.checkpointing": "recompute: none, selective, full, offload",
    "memory.loss": "fused computes the logits in pieces, plain all at once",
    "train.precision": "fp32, bf16, bf16_sr (stochastic rounding)",
}


def profile_text(comments: Sequence[str], description: str, base: str, keys: Mapping[str, Any]) -> str:
    """Return the TOML of a profile that extends ``base`` with dotted ``keys``; ``comments`` are lines at its top."""
    tables: dict[str, list[str]] = {}
    for key, value in keys.items():
        table, _, name = key.partition(".")
        note = f"  # {NOTES[key]}" if key in NOTES else ""
        tables.setdefault(table, []).append(f"{name} = {_literal(value)}{note}")
    wrapped = (textwrap.wrap(one_line(comment), WIDTH - 2, subsequent_indent="  ") for comment in comments)
    lines = [f"# {line}" for part in wrapped for line in part]
    lines += [f"description = {_literal(description)}", f"extends = {_literal(base)}"]
    for table, rows in tables.items():
        lines += ["", f"[{table}]", *rows]
    return "\n".join([*lines, ""])


def check_new_profile(name: str, *, replace: bool = False) -> Path:
    """Return the file of the user's profile ``name``.

    Raise ``UserError`` where there is one already (unless ``replace``) or it could not be written.
    """
    check_name("--name", name)
    folder = user_folder()
    path = folder / f"{name}.toml"
    if name in BUILTIN_ORDER:
        raise SpecError(f"--name {name}: is a built-in profile; choose another name")
    if path.exists() and not replace:
        raise UserError(f"{path}: exists; choose another --name, or replace it with --force")
    nearest = next(there for there in (folder, *folder.parents) if there.exists())
    if not nearest.is_dir():
        raise _unwritable(nearest, "is not a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise _unwritable(nearest, "Permission denied")
    return path


def write_profile(text: str, name: str, *, replace: bool = False) -> Path:
    """Write the user's profile ``name`` atomically and return its file. Raise as ``check_new_profile``."""
    path = check_new_profile(name, replace=replace)
    temporary = path.with_name(f".{name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise _unwritable(path.parent, error.strerror) from None
    return path


def _unwritable(folder: Path, why: str | None) -> UserError:
    return UserError(f"{folder}: {why}; make it writable, or set XDG_CONFIG_HOME")


def _literal(value: Any) -> str:
    """Return ``value`` as TOML. A JSON string, number, boolean or list is one too."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {_literal(one)}" for key, one in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)
