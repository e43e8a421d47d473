"""Facts about systemd on this machine: whether it runs, whether the user lingers, where our unit lies."""

from __future__ import annotations

import os
from pathlib import Path

from engine.host.private_dirs import user_name

NAME = "mla-tui.service"


def has_logind(root: Path = Path("/")) -> bool:
    """Whether this machine was booted by systemd."""
    return (root / "run/systemd/system").is_dir()


def lingers(root: Path = Path("/")) -> bool:
    return (root / "var/lib/systemd/linger" / user_name(os.getuid())).exists()


def unit_path() -> Path:
    config = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(config).expanduser() / "systemd" / "user" / NAME
