"""What happens to runs when their owner logs out: systemd-logind may end every process of a session."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from engine.checks.finding import Finding
from engine.checks.systemd import has_logind, lingers, unit_path
from engine.runs.store import RunStore

LOGIND_FOLDERS = ("usr/lib/systemd", "usr/local/lib/systemd", "run/systemd", "etc/systemd")  # the later, the stronger


def lingering(store: RunStore) -> Iterator[Finding]:
    if not has_logind():
        yield Finding("ok", "lingering", "no systemd here, so nothing of it ends runs at logout")
    elif lingers():
        yield Finding("ok", "lingering", "on: your services begin at boot and stay after you log out")
    else:
        yield Finding(
            "warn",
            "lingering",
            "off: at your last logout shared memory (/dev/shm) is taken away, and no service of yours begins at boot",
            "loginctl enable-linger",
        )


def after_a_reboot(store: RunStore) -> Iterator[Finding]:
    if unit_path().exists():
        yield Finding("ok", "after a reboot", f"runs that were cut off go on unasked ({unit_path()})")
    else:
        unasked = "; unasked: mla-tui service install" if has_logind() else ""
        yield Finding("ok", "after a reboot", f"runs that were cut off wait for mla-tui resume --cut-off{unasked}")


def kill_user_processes(store: RunStore) -> Iterator[Finding]:
    if not has_logind():
        return
    told = _told_by_logind()
    kills = told if told is not None else configured(Path("/"))
    if kills and lingers():
        yield Finding("ok", "KillUserProcesses", "yes, but you linger: runs live in scopes of their own and stay")
    elif kills:
        yield Finding(
            "bad",
            "KillUserProcesses",
            "yes: a run ends when you log out",
            "loginctl enable-linger, before the launch",
        )
    elif kills is None:
        yield Finding(
            "warn",
            "KillUserProcesses",
            "logind does not answer and no file sets it; systemd's own default is yes, most distributions say no",
            "loginctl show-session -p KillUserProcesses",
        )
    else:
        yield Finding("ok", "KillUserProcesses", "no: a run stays when you log out")


def _told_by_logind() -> bool | None:
    """What logind itself says; None where it does not."""
    argv = ["loginctl", "show-session", "--property=KillUserProcesses", "--value"]
    try:
        told = subprocess.run(argv, capture_output=True, text=True, timeout=0.5, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return {"yes": True, "no": False}.get(told.stdout.strip())


def configured(root: Path) -> bool | None:
    """What logind.conf and its drop-ins say (logind.conf(5)); None where none sets it.

    The first logind.conf counts that is found from /etc down; drop-ins come after it, sorted by their names, and one
    in a stronger folder takes the place of its namesake.
    """
    mains = [root / folder / "logind.conf" for folder in reversed(LOGIND_FOLDERS)]
    drop_ins = {
        path.name: path for folder in LOGIND_FOLDERS for path in (root / folder / "logind.conf.d").glob("*.conf")
    }
    files = [*[path for path in mains if path.is_file()][:1], *(drop_ins[name] for name in sorted(drop_ins))]
    answer: bool | None = None
    for path in files:
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        for value in re.findall(r"^\s*KillUserProcesses\s*=\s*(\S*)\s*$", text, re.MULTILINE):
            answer = value.lower() in ("yes", "true", "on", "1", "y", "t") if value else None
    return answer
