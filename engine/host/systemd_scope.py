"""Puts long-lived processes into their own systemd scopes, so that they survive a logout.

A detached process still belongs to the login session. logind may kill the session (KillUserProcesses), and systemd-oomd
kills a whole scope at once. If the user lingers, their systemd manager outlives the session, so supervisor and trainer
each get a scope there. Without lingering the manager ends with the last session, and a scope would make things worse.
"""

from __future__ import annotations

import functools
import getpass
import os
import shutil
import subprocess
import time

_TIMEOUT = 5.0  # seconds
_RUN = ("systemd-run", "--user", "--scope", "--quiet", "--collect")


def scope_prefix(name: str) -> list[str]:
    """Return the arguments to put before a command to run it in a scope named after ``name``; [] if unavailable."""
    if not _available():
        return []
    return [*_RUN, f"--unit=mla-tui-{name}-{time.monotonic_ns():x}", "--"]


@functools.cache
def _available() -> bool:
    """Return whether this user lingers and a test scope can be created."""
    if not (shutil.which("systemd-run") and shutil.which("loginctl") and os.environ.get("XDG_RUNTIME_DIR")):
        return False
    return _output(["loginctl", "show-user", getpass.getuser(), "--property=Linger", "--value"]) == "yes" and (
        _output([*_RUN, "--", "echo", "ok"]) == "ok"
    )


def _output(argv: list[str]) -> str | None:
    """Return what a command prints; None if it fails."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_TIMEOUT, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
