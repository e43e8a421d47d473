"""Expands paths that a user or the environment gave, and finds the user's directories (XDG Base Directory)."""

from __future__ import annotations

import os
from pathlib import Path

from profiles.errors import UserError


def expand(text: str, source: str) -> Path:
    """Return ``text`` as an absolute path, with ``~`` expanded.

    Raises ``UserError`` that begins with ``source`` where ``~`` names no home directory: an unknown user, or HOME is
    not set and the system knows no home of this user either.
    """
    try:
        return Path(os.path.abspath(Path(text).expanduser()))
    except RuntimeError:
        raise UserError(f"{source}: {text}: there is no home directory for ~; set HOME, or write a full path") from None


def expand_output(text: str, source: str) -> Path:
    """Return ``text`` as ``expand`` does, for a file or folder that is written. Raises ``UserError`` for ``-`` too.

    Elsewhere ``-`` is standard output, so a file of that name is not what was meant.
    """
    if text == "-":
        raise UserError(f"{source}: - would be standard output, which this is not written to; name a path, or ./-")
    return expand(text, source)


def user_dir(variable: str, default: str) -> Path:
    """Return the directory that the environment ``variable`` names (XDG_CONFIG_HOME …), or ``default``."""
    return expand(os.environ.get(variable) or default, variable)


def default_home() -> Path:
    """Return the directory of all runs: MLA_TUI_HOME, or the one that XDG names for state."""
    home = os.environ.get("MLA_TUI_HOME")
    if home:
        return expand(home, "MLA_TUI_HOME")
    return user_dir("XDG_STATE_HOME", "~/.local/state") / "mla-tui"


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry of a folder is one; a link that leads nowhere, or to itself, is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False
