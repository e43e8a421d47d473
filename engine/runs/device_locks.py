"""One run a device: the lock that a run's supervisor takes and its trainer inherits.

Runs that wait for it hold a lock on a file of their own beside it, and the oldest of them (ids sort by time) is next.

A flock belongs to the open file, not to a process, so it lasts as long as either of the two lives. A supervisor that
the trainer revives inherits it in turn: the descriptors' numbers stand in the environment.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from engine.events.run_dir import RunDir
from engine.host.process import LOCK_FDS_ENV, inherited_lock_fds, is_locked
from profiles.errors import UserError
from profiles.nvml import visible_uuids

if TYPE_CHECKING:
    from profiles.spec import RunSpec

LEAVING = 15.0  # seconds


def devices_of(spec: RunSpec) -> list[str]:
    """Names of what the run computes on here: the cards' UUIDs, "mlx" or "cpu"."""
    if spec.launch.backend == "mlx":
        return ["mlx"]
    return visible_uuids(spec.launch.gpus_per_node) or ["cpu"]


class DeviceLocks:
    """The locks of one run on ``devices``, below ``home``."""

    def __init__(self, home: Path, devices: list[str]) -> None:
        self._folder = home / "devices"
        self._paths = {device: _path(home, device) for device in devices}
        self._fds: dict[str, int] = {}
        self._in_line: dict[Path, int] = {}
        for fd in inherited_lock_fds():
            for device, path in self._paths.items():
                with contextlib.suppress(OSError):
                    if os.path.samestat(os.fstat(fd), os.stat(path)):
                        self._fds[device] = fd

    def take(self, run: str) -> tuple[str, str] | None:
        """Lock what is not held yet, all or nothing; else a device and the run that has it or is before us.

        Raises ``OSError``.
        """
        self._folder.mkdir(mode=0o700, exist_ok=True)
        wanted = sorted(self._paths.keys() - self._fds.keys())  # in one order, so that two never wait crosswise
        for device in wanted:
            first = self._first_in_line(device, run)
            other = (holder(self._folder.parent, device) or first) if first else self._lock(device, run)
            if other:
                self._unlock()
                self._stand_in_line(run)
                return device, other
        self._leave_line()
        return None

    def _lock(self, device: str, run: str) -> str:
        fd = _locked(self._paths[device])
        if fd is None:
            return holder(self._folder.parent, device) or "unknown"
        os.truncate(fd, 0)
        os.pwrite(fd, run.encode(), 0)
        self._fds[device] = fd
        return ""

    def _first_in_line(self, device: str, run: str) -> str:
        """The oldest run before ``run`` that waits for ``device``. Whoever died waiting has left an unlocked file."""
        for path in sorted(self._folder.glob(f"{device}.wait.*")):
            other = path.name.rpartition(".wait.")[2]
            if other >= run:
                break
            if is_locked(path):
                return other
            path.unlink(missing_ok=True)
        return ""

    def _stand_in_line(self, run: str) -> None:
        for device in self._paths:
            path = self._folder / f"{device}.wait.{run}"
            if path not in self._in_line and (fd := _locked(path)) is not None:
                self._in_line[path] = fd

    def release(self) -> None:
        self._leave_line()
        self._unlock()

    def _unlock(self) -> None:
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()

    def _leave_line(self) -> None:
        for path, fd in self._in_line.items():
            path.unlink(missing_ok=True)
            os.close(fd)
        self._in_line.clear()

    @property
    def fds(self) -> tuple[int, ...]:
        """What a process that is to share the locks must inherit."""
        return tuple(self._fds.values())

    @property
    def env(self) -> dict[str, str]:
        """What that process must find in its environment."""
        return {LOCK_FDS_ENV: ",".join(map(str, self.fds))}


def _locked(path: Path) -> int | None:
    """An open file that holds the lock on ``path``, or None where another does."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def holder(home: Path, device: str) -> str | None:
    """The id of the run that has ``device`` now; None where it is free."""
    path = _path(home, device)
    if not is_locked(path):
        return None
    with contextlib.suppress(OSError):
        return path.read_text() or "unknown"
    return "unknown"


def check_free(home: Path, spec: RunSpec) -> None:
    """Raises ``UserError`` that names the run which has a device of ``spec``.

    A run that has just ended is waited for: its trainer takes a moment to leave.
    """
    deadline = time.monotonic() + LEAVING
    for device in devices_of(spec):
        while run := holder(home, device):
            if RunDir(home / "runs" / run).ended() and time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            raise UserError(
                f"{device}: is used by run {run}; wait for it with --queue, stop it with: mla-tui stop {run},"
                " or use the device together with --share-device"
            )


def _path(home: Path, device: str) -> Path:
    return home / "devices" / f"{device}.lock"
