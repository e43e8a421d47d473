"""Checks the state directory: its file system, permissions, free space, clock, versions and hooks."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from engine.checks.finding import Finding
from engine.events.phases import is_active
from engine.host.private_dirs import ownership_problem
from engine.host.version import VERSION
from engine.runs import hooks
from engine.runs.store import STAMP, STAMP_LENGTH, RunStore
from profiles.errors import UserError

NETWORK = re.compile(
    r"nfs|cifs|smb|9p|afs|ceph|lustre|beegfs|gpfs|gluster|sshfs|webdav|davfs|ncpfs|pvfs|orangefs|ocfs|fuse\.(s3|gcs|rclone)"
)
LOW_SPACE, NO_SPACE = 1 << 30, 64 << 20  # bytes


def file_system(store: RunStore) -> Iterator[Finding]:
    kind = file_system_of(nearest_existing(store.home))
    check = "state directory"
    if kind is None:
        yield Finding("warn", check, f"{store.home}: its file system is unknown", "keep it on a local disk")
    elif NETWORK.search(kind):
        yield Finding(
            "warn",
            check,
            f"{store.home} is on a network file system ({kind}), where locks and sockets may not work",
            "set MLA_TUI_HOME to a directory on a local disk",
        )
    elif kind in ("tmpfs", "ramfs"):
        yield Finding(
            "warn",
            check,
            f"{store.home} is in memory ({kind}): a reboot deletes the state of every run",
            "set MLA_TUI_HOME to a directory on a local disk",
        )
    else:
        yield Finding("ok", check, f"{store.home}, {kind}")


def nearest_existing(path: Path) -> Path:
    """Return ``path``, or the nearest parent that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def file_system_of(path: Path, mounts: str | None = None) -> str | None:
    """Return the type of the file system of ``path``; ``mounts`` is /proc/self/mountinfo or the output of ``mount``."""
    try:
        if mounts is None and sys.platform == "linux":
            mounts = Path("/proc/self/mountinfo").read_text()
        elif mounts is None:
            mounts = subprocess.run(["/sbin/mount"], capture_output=True, text=True, timeout=0.5).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    real, best, kind = os.path.realpath(path), "", None
    for point, type in _parse_mounts(mounts):
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):  # of two on one mount point the later hides the other
            best, kind = point, type
    return kind


def _parse_mounts(mounts: str) -> Iterator[tuple[str, str]]:
    """Yield (mount point, type) of each line of mountinfo (proc(5)) or of macOS's ``mount``."""
    for line in mounts.splitlines():
        if " - " in line and line[:1].isdigit():
            left, _, right = line.partition(" - ")
            point = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), left.split()[4])
            yield point, right.split()[0]
        elif found := re.match(r".* on (/.*) \(([^,)]+)", line):
            yield found[1], found[2]


def permissions(store: RunStore) -> Iterator[Finding]:
    check = "permissions"
    first = next(filter(None, map(ownership_problem, (store.home, store.runs))), None)  # who owns it may hide the rest
    problems = [first] if first else store.foreign_entries()
    for line in problems:
        message, _, fix = line.partition("; ")
        yield Finding("error", check, message, fix)
    if problems:
        return
    if not store.home.exists():
        yield Finding("ok", check, "not created yet; only you will be able to read it")
        return
    if not os.access(store.home, os.W_OK | os.X_OK):
        yield Finding("error", check, f"{store.home}: is not writable", "chmod u+rwx it, or set MLA_TUI_HOME")
        return
    readable = [p for p in (store.home, store.runs) if p.exists() and stat.S_IMODE(p.stat().st_mode) & 0o077]
    if readable:
        yield Finding(
            "warn", check, f"{readable[0]}: other users can read it", f"chmod 700 {shlex.quote(str(readable[0]))}"
        )
    else:
        yield Finding("ok", check, "only you can read it")


def free_space(store: RunStore) -> Iterator[Finding]:
    disk = os.statvfs(nearest_existing(store.home))
    free = disk.f_bavail * disk.f_frsize
    fix = f"free space on the disk of {store.home}; mla-tui rm RUN removes an ended run"
    if free < NO_SPACE or (disk.f_files and not disk.f_favail):
        yield Finding("error", "free space", f"{_size(free)}: no run can write its log", fix)
    elif free < LOW_SPACE:
        yield Finding("warn", "free space", f"{_size(free)}", fix)
    else:
        yield Finding("ok", "free space", f"{_size(free)} for logs and states")


def clock(store: RunStore) -> Iterator[Finding]:
    if time.gmtime().tm_year < 2024:
        yield Finding("error", "clock", time.strftime("shows %Y-%m-%d"), "set it: timedatectl set-ntp true")
        return
    newest = next(iter(_ids(store)), "")[:STAMP_LENGTH]
    now = time.strftime(
        STAMP, time.gmtime(time.time() + 60)
    )  # runs launched in one second get ids of the following seconds
    if re.fullmatch(r"\d{8}-\d{6}", newest) and newest > now:
        yield Finding(
            "warn",
            "clock",
            f"the newest run is of {newest} (UTC), in the future: the clock was set back",
            "set it: timedatectl set-ntp true",
        )


def _ids(store: RunStore) -> list[str]:
    try:
        return store.ids()
    except UserError:  # the check of permissions reports it
        return []


def versions(store: RunStore) -> Iterator[Finding]:
    """Find active runs of another version: they keep the code they started with, a restart uses the installed one."""
    for id in _ids(store):
        run = store.find(id).summary()
        alive = run.trainer.alive or run.supervisor.alive
        if not is_active(run.phase) or not alive or run.version == VERSION:
            continue
        yield Finding(
            "warn",
            "versions",
            f"{id} runs mla-tui {run.version}, installed is {VERSION}; a restart uses the installed version",
            f"when convenient: mla-tui stop {id}, then mla-tui launch --resume {id}",
        )


def hooks_file(store: RunStore) -> Iterator[Finding]:
    path = hooks.hooks_path()
    try:
        commands = hooks.load()
    except UserError as error:
        yield Finding("error", "hooks", str(error), "fix it, then: mla-tui hooks try finished")
        return
    if not path.exists():
        yield Finding("ok", "hooks", f"none ({path})")
        return
    if path.stat().st_mode & 0o022:
        yield Finding(
            "error",
            "hooks",
            f"{path}: other users can change the commands you run",
            f"chmod 600 {shlex.quote(str(path))}",
        )
    missing = {event: program for event, command in commands.items() if (program := _missing_program(command))}
    for event, program in missing.items():
        yield Finding("warn", "hooks", f"{path}: on_event.{event}: program {program} not found", "install it")
    if not missing:
        yield Finding("ok", "hooks", ", ".join(commands) or f"none in {path}")


def _missing_program(command: str) -> str | None:
    """Return the program a command starts with, if it is certainly one and cannot be found."""
    try:
        first = shlex.split(command)[0]
    except (ValueError, IndexError):
        return None
    plain = re.fullmatch(r"[\w./~-]+", first)
    shell = subprocess.run(["/bin/sh", "-c", f"command -v {first}"], capture_output=True, timeout=1) if plain else None
    return first if shell is not None and shell.returncode and not shutil.which(os.path.expanduser(first)) else None


def _size(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
