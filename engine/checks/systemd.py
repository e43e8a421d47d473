"""Reports whether systemd runs here, whether the user lingers, and where our unit file is."""

from __future__ import annotations

import os
from pathlib import Path

from engine.host.private_dirs import user_name
from profiles.paths import user_dir

NAME = "mla-tui.service"


def has_logind(root: Path = Path("/")) -> bool:
    """Whether this machine was booted by systemd."""
    return (root / "run/systemd/system").is_dir()


def lingers(root: Path = Path("/")) -> bool:
    """Whether the user's services start at boot and survive logout (loginctl enable-linger)."""
    return (root / "var/lib/systemd/linger" / user_name(os.getuid())).exists()


def unit_path() -> Path:
    return user_dir("XDG_CONFIG_HOME", "~/.config") / "systemd" / "user" / NAME
