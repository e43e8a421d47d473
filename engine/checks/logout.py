"""Checks what happens to runs at logout and reboot: systemd-logind may kill every process of a session."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from engine.checks.finding import Finding
from engine.checks.systemd import has_logind, lingers, unit_path
from engine.runs.store import RunStore

LOGIND_FOLDERS = (
    "usr/lib/systemd",
    "usr/local/lib/systemd",
    "run/systemd",
    "etc/systemd",
)  # later ones take precedence


def lingering(store: RunStore) -> Iterator[Finding]:
    if not has_logind():
        yield Finding("ok", "lingering", "no systemd here, so it ends no runs at logout")
    elif lingers():
        yield Finding("ok", "lingering", "on: your services start at boot and stay after you log out")
    else:
        yield Finding(
            "warn",
            "lingering",
            "off: at your last logout shared memory (/dev/shm) is removed, and none of your services starts at boot",
            "loginctl enable-linger",
        )


def after_a_reboot(store: RunStore) -> Iterator[Finding]:
    if unit_path().exists():
        yield Finding("ok", "after a reboot", f"runs that were cut off are resumed automatically ({unit_path()})")
    else:
        automatic = "; automatically with: mla-tui service install" if has_logind() else ""
        yield Finding("ok", "after a reboot", f"runs that were cut off wait for mla-tui resume --cut-off{automatic}")


def kill_user_processes(store: RunStore) -> Iterator[Finding]:
    if not has_logind():
        return
    answer = _ask_logind()
    kills = answer if answer is not None else read_kill_setting(Path("/"))
    if kills and lingers():
        yield Finding("ok", "KillUserProcesses", "yes, but you linger: runs have their own scopes and stay")
    elif kills:
        yield Finding(
            "error",
            "KillUserProcesses",
            "yes: a run ends when you log out",
            "before the launch: loginctl enable-linger",
        )
    elif kills is None:
        yield Finding(
            "warn",
            "KillUserProcesses",
            "logind does not answer and no file sets it; systemd's default is yes, most distributions set no",
            "loginctl show-session -p KillUserProcesses",
        )
    else:
        yield Finding("ok", "KillUserProcesses", "no: a run stays when you log out")


def _ask_logind() -> bool | None:
    """Return logind's own value; None where it does not answer."""
    argv = ["loginctl", "show-session", "--property=KillUserProcesses", "--value"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=0.5, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return {"yes": True, "no": False}.get(done.stdout.strip())


def read_kill_setting(root: Path) -> bool | None:
    """Return KillUserProcesses from logind.conf and its drop-ins (logind.conf(5)); None where none sets it.

    The first logind.conf found from /etc down counts. Drop-ins follow, sorted by name; one in a folder of higher
    precedence replaces those of the same name.
    """
    mains = [root / folder / "logind.conf" for folder in reversed(LOGIND_FOLDERS)]
    drop_ins = {
        path.name: path for folder in LOGIND_FOLDERS for path in (root / folder / "logind.conf.d").glob("*.conf")
    }
    files = [*[path for path in mains if path.is_file()][:1], *(drop_ins[name] for name in sorted(drop_ins))]
    setting: bool | None = None
    for path in files:
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        for value in re.findall(r"^\s*KillUserProcesses\s*=\s*(\S*)\s*$", text, re.MULTILINE):
            setting = value.lower() in ("yes", "true", "on", "1", "y", "t") if value else None
    return setting
