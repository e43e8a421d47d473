"""The directory that holds every run's state: where it lies, whose it is, and what is in it."""

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
from engine.events.summary import INACTIVE
from engine.host.private_dirs import ownership_problem
from engine.host.version import package_version
from engine.runs import hooks
from engine.runs.store import STAMP, STAMP_LENGTH, RunStore
from profiles.errors import UserError

NETWORK = re.compile(
    r"nfs|cifs|smb|9p|afs|ceph|lustre|beegfs|gpfs|gluster|sshfs|webdav|davfs|ncpfs|pvfs|orangefs|ocfs|fuse\.(s3|gcs|rclone)"
)
LITTLE, SCARCE = 1 << 30, 64 << 20  # bytes


def file_system(store: RunStore) -> Iterator[Finding]:
    kind = file_system_of(existing(store.home))
    what = "state directory"
    if kind is None:
        yield Finding("warn", what, f"{store.home}: its file system is not known", "keep it on a local disk")
    elif NETWORK.search(kind):
        yield Finding(
            "warn",
            what,
            f"{store.home} is on a network file system ({kind}), where locks and sockets may not work",
            "set MLA_TUI_HOME to a directory on a local disk",
        )
    elif kind in ("tmpfs", "ramfs"):
        yield Finding(
            "warn",
            what,
            f"{store.home} is in memory ({kind}): a reboot takes every run's state with it",
            "set MLA_TUI_HOME to a directory on a local disk",
        )
    else:
        yield Finding("ok", what, f"{store.home}, {kind}")


def existing(path: Path) -> Path:
    """``path``, or the nearest of its parents that is there."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def file_system_of(path: Path, told: str | None = None) -> str | None:
    """The type of the file system that holds ``path``. ``told``: /proc/self/mountinfo or what ``mount`` prints."""
    try:
        if told is None and sys.platform == "linux":
            told = Path("/proc/self/mountinfo").read_text()
        elif told is None:
            told = subprocess.run(["/sbin/mount"], capture_output=True, text=True, timeout=0.5).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    real, best, kind = os.path.realpath(path), "", None
    for point, type in _mounts(told):
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):  # of two on one place the later lies on top
            best, kind = point, type
    return kind


def _mounts(told: str) -> Iterator[tuple[str, str]]:
    """(mount point, type) of each line of mountinfo (proc(5)) or of macOS's ``mount``."""
    for line in told.splitlines():
        if " - " in line and line[:1].isdigit():
            left, _, right = line.partition(" - ")
            point = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), left.split()[4])
            yield point, right.split()[0]
        elif found := re.match(r".* on (/.*) \(([^,)]+)", line):
            yield found[1], found[2]


def permissions(store: RunStore) -> Iterator[Finding]:
    what = "permissions"
    wrong = [line for line in map(ownership_problem, (store.home, store.runs)) if line]
    if not wrong:
        wrong = store.foreign_entries()
    for line in wrong:
        said, _, way = line.partition("; ")
        yield Finding("bad", what, said, way)
    if wrong:
        return
    if not store.home.exists():
        yield Finding("ok", what, "nothing is there yet; it is made for you alone")
        return
    if not os.access(store.home, os.W_OK | os.X_OK):
        yield Finding("bad", what, f"{store.home}: cannot be written to", "chmod u+rwx it, or set MLA_TUI_HOME")
        return
    open_ones = [p for p in (store.home, store.runs) if p.exists() and stat.S_IMODE(p.stat().st_mode) & 0o077]
    if open_ones:
        yield Finding("warn", what, f"{open_ones[0]}: other users may look into it", f"chmod 700 {open_ones[0]}")
    else:
        yield Finding("ok", what, "yours alone")


def space(store: RunStore) -> Iterator[Finding]:
    disk = os.statvfs(existing(store.home))
    free = disk.f_bavail * disk.f_frsize
    way = f"make room on the disk of {store.home}; mla-tui rm RUN forgets an ended run"
    if free < SCARCE or (disk.f_files and not disk.f_favail):
        yield Finding("bad", "free space", f"{_size(free)}: no run's log can grow", way)
    elif free < LITTLE:
        yield Finding("warn", "free space", f"{_size(free)}", way)
    else:
        yield Finding("ok", "free space", f"{_size(free)} for logs and states")


def clock(store: RunStore) -> Iterator[Finding]:
    if time.gmtime().tm_year < 2024:
        yield Finding("bad", "clock", time.strftime("it says %Y-%m-%d"), "set it: timedatectl set-ntp true")
        return
    newest = next(iter(_ids(store)), "")[:STAMP_LENGTH]
    now = time.strftime(STAMP, time.gmtime(time.time() + 60))  # ids of one second stand in the next ones
    if re.fullmatch(r"\d{8}-\d{6}", newest) and newest > now:
        yield Finding(
            "warn",
            "clock",
            f"the newest run is of {newest} (UTC), still to come: it was set back",
            "set it: timedatectl set-ntp true",
        )


def _ids(store: RunStore) -> list[str]:
    try:
        return store.ids()
    except UserError:  # told by permissions
        return []


def other_versions(store: RunStore) -> Iterator[Finding]:
    """Living runs go on with the code they were started with; a restart takes the installed one."""
    ours = package_version()
    for id in _ids(store):
        run = store.find(id).summary()
        living = run["trainer"]["alive"] or run["supervisor"]["alive"]
        if run["phase"] in INACTIVE or not living or run["version"] == ours:
            continue
        yield Finding(
            "warn",
            "versions",
            f"{id} runs under mla-tui {run['version']}, installed is {ours}; what restarts of it is the installed one",
            f"at a good moment: mla-tui stop {id}, then mla-tui launch --resume latest",
        )


def hooks_file(store: RunStore) -> Iterator[Finding]:
    path = hooks.hooks_path()
    try:
        commands = hooks.load()
    except UserError as error:
        yield Finding("bad", "hooks", str(error), "mend it, then: mla-tui hooks try finished")
        return
    if not path.exists():
        yield Finding("ok", "hooks", f"none ({path})")
        return
    if path.stat().st_mode & 0o022:
        yield Finding("bad", "hooks", f"{path}: others may write what you run", f"chmod 600 {path}")
    missing = {event: program for event, command in commands.items() if (program := _missing_program(command))}
    for event, program in missing.items():
        yield Finding("warn", "hooks", f"{path}: on_event.{event}: there is no program {program}", "install it")
    if not missing:
        yield Finding("ok", "hooks", ", ".join(commands) or f"none in {path}")


def _missing_program(command: str) -> str | None:
    """The program a command begins with, where it is plainly one and not there."""
    try:
        first = shlex.split(command)[0]
    except (ValueError, IndexError):
        return None
    plain = re.fullmatch(r"[\w./~-]+", first)
    shell = subprocess.run(["/bin/sh", "-c", f"command -v {first}"], capture_output=True, timeout=1) if plain else None
    return first if shell is not None and shell.returncode and not shutil.which(os.path.expanduser(first)) else None


def _size(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
