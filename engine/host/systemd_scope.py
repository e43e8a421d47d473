"""A systemd scope of its own for each process that must live long.

A process that is merely detached still belongs to the login session, and where logind kills those (KillUserProcesses)
or systemd-oomd ends a whole scope, all go together. With lingering the user's manager outlives the session, so
supervisor and trainer each get a scope there. Without it the manager ends with the last session: then a scope would be
worse.
"""

from __future__ import annotations

import functools
import getpass
import os
import shutil
import subprocess
import time

_PATIENCE = 5.0  # seconds for systemd to answer
_RUN = ("systemd-run", "--user", "--scope", "--quiet", "--collect")


def scope_prefix(name: str) -> list[str]:
    """The words to put before a command so that it runs in a scope called after ``name``; none where that cannot be."""
    if not _available():
        return []
    return [*_RUN, f"--unit=mla-tui-{name}-{time.monotonic_ns():x}", "--"]


@functools.cache
def _available() -> bool:
    """Whether this user lingers and scopes can really be had: one is tried."""
    if not (shutil.which("systemd-run") and shutil.which("loginctl") and os.environ.get("XDG_RUNTIME_DIR")):
        return False
    return _says(["loginctl", "show-user", getpass.getuser(), "--property=Linger", "--value"]) == "yes" and (
        _says([*_RUN, "--", "echo", "ok"]) == "ok"
    )


def _says(argv: list[str]) -> str | None:
    """What a command prints; None where it fails."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_PATIENCE, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
