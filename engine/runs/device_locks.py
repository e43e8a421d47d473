"""Locks devices, so that each is used by one run at a time and waiting runs get it in order of age.

A run's supervisor acquires the lock and its trainer inherits it. A flock belongs to the open file, not to a process, so
it lasts as long as either process lives. A supervisor that the trainer restarts inherits it in turn: the environment
holds the numbers of the descriptors.

A waiting run locks its own file beside the device's. The oldest waiting run (ids sort by time) is next.

``mla-tui tune`` locks the devices too while it measures, so its name may stand where that of a run does.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING

from engine.events.run_dir import RunDir
from engine.host.process import (
    LOCK_FDS_ENV,
    ProcessIdentity,
    boot_id,
    inherited_lock_fds,
    is_alive,
    is_linked,
    is_locked,
    is_visible,
)
from profiles.errors import UserError
from profiles.nvml import visible_uuids
from profiles.reader import read_text

if TYPE_CHECKING:
    from profiles.spec import RunSpec

TUNE = "mla-tui tune"  # begins the name under which a tune holds a device; no run is called that
_TUNE_NAME = re.compile(re.escape(TUNE) + r" (\d+) (\d+) (\S+) (\d+|None)")
EXIT_TIMEOUT = 15.0  # seconds for the trainer of a run that has just ended to exit


def devices_of(spec: RunSpec) -> list[str]:
    """Return the names of the devices the run uses on this host: GPU UUIDs, "mlx" or "cpu"."""
    if spec.launch.backend == "mlx":
        return ["mlx"]
    return visible_uuids(spec.launch.gpus_per_node) or ["cpu"]


class DeviceLocks:
    """The locks of one run on ``devices``, in ``home/devices``."""

    def __init__(self, home: Path, devices: list[str]) -> None:
        self._folder = home / "devices"
        self._paths = {device: _path(home, device) for device in devices}
        self._fds: dict[str, int] = {}
        self._queue_fds: dict[Path, int] = {}
        for fd in inherited_lock_fds():
            for device, path in self._paths.items():
                with contextlib.suppress(OSError):
                    if os.path.samestat(os.fstat(fd), os.stat(path)):
                        self._fds[device] = fd

    def acquire(self, run: str) -> tuple[str, str] | None:
        """Lock every device and return None, or lock none and return (device, the run that uses it or is next).

        Raises ``OSError``.
        """
        self._folder.mkdir(mode=0o700, exist_ok=True)
        wanted = sorted(self._paths.keys() - self._fds.keys())  # one order for all runs, so that no two can deadlock
        for device in wanted:
            earlier = self._waiting_before(run, device)
            other = (holder(self._folder.parent, device) or earlier) if earlier else self._lock(device, run)
            if other:
                self._unlock()
                self._join_queue(run)
                return device, other
        self._leave_queue()
        return None

    def waits_for(self, run: str) -> tuple[str, str] | None:
        """Lock every device and return None, or lock none and return (device, why ``run`` waits for it)."""
        try:
            in_use = self.acquire(run)
        except OSError as error:
            self._unlock()
            devices = ", ".join(self._paths)
            return devices, f"cannot lock {devices}, and tries again: {error}"
        if in_use is None:
            return None
        device, other = in_use
        uses = holder(self._folder.parent, device) == other
        return device, f"waits for {device}, {'in use by' if uses else 'after'} {described(other)}"

    def _lock(self, device: str, run: str) -> str:
        fd = _try_lock(self._paths[device])
        if fd is None:
            return holder(self._folder.parent, device) or "unknown"
        _write_name(fd, run)
        self._fds[device] = fd
        return ""

    def _waiting_before(self, run: str, device: str) -> str:
        """The oldest run before ``run`` that waits for ``device``; a run that died waiting left an unlocked file."""
        for path in sorted(self._folder.glob(f"{device}.wait.*")):
            other = path.name.rpartition(".wait.")[2]
            if other >= run:
                break
            if is_locked(path):
                return other
            path.unlink(missing_ok=True)
        return ""

    def _join_queue(self, run: str) -> None:
        for device in self._paths:
            path = self._folder / f"{device}.wait.{run}"
            if path in self._queue_fds and not is_linked(path, self._queue_fds[path]):  # deleted: not in the queue
                os.close(self._queue_fds.pop(path))
            if path not in self._queue_fds and (fd := _try_lock(path)) is not None:
                _write_name(fd, run)  # what deletes empty files leaves it alone
                self._queue_fds[path] = fd

    def hold(self, run: str) -> None:
        """Lock the files again that were deleted while the trainer of ``run`` uses its devices. Raises ``OSError``."""
        for device, path in self._paths.items():
            old = self._fds.get(device)
            if (old is None or not is_linked(path, old)) and not self._lock(device, run) and old is not None:
                os.close(old)

    def release(self) -> None:
        self._leave_queue()
        self._unlock()

    def _unlock(self) -> None:
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()

    def _leave_queue(self) -> None:
        for path, fd in self._queue_fds.items():
            path.unlink(missing_ok=True)
            os.close(fd)
        self._queue_fds.clear()

    @property
    def fds(self) -> tuple[int, ...]:
        """Descriptors for a child process that shares the locks."""
        return tuple(self._fds.values())

    @property
    def env(self) -> dict[str, str]:
        """Environment variables for that child process."""
        return {LOCK_FDS_ENV: ",".join(map(str, self.fds))}


def _try_lock(path: Path) -> int | None:
    """Open and lock ``path``; return the descriptor, or None where another process holds the lock."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def _write_name(fd: int, run: str) -> None:
    """Write into a lock file who holds it. A full disk takes no name; the lock holds without."""
    with contextlib.suppress(OSError):
        os.truncate(fd, 0)
        os.pwrite(fd, run.encode(), 0)


def holder(home: Path, device: str) -> str | None:
    """Return the id of the run that uses ``device``, None where it is free."""
    path = _path(home, device)
    if not is_locked(path):
        return None
    with contextlib.suppress(OSError, UserError):
        return read_text(path) or "unknown"
    return "unknown"


def described(holder: str) -> str:
    """Return what ``holder`` calls a device's user in words: ``run 20261125-1-x``, or a tune and where it is."""
    if not holder.startswith(TUNE):
        return f"run {holder}"
    if (tune := _tune_process(holder)) is None:
        return TUNE
    if tune.boot != boot_id():
        return f"{TUNE} on another machine (process {tune.pid} there)"
    where = "" if is_visible(tune) else " in another container"
    return f"{TUNE}{where} (process {tune.pid}{' there' if where else ''})"


def tune_name(process: ProcessIdentity) -> str:
    """Return the name under which the tune of ``process`` holds a device. Its pid alone means nothing elsewhere."""
    return f"{TUNE} {process.pid} {process.start_ticks} {process.boot} {process.namespace}"


def _tune_process(holder: str) -> ProcessIdentity | None:
    """Return the process of a tune, or None where ``holder`` does not say it."""
    if (found := _TUNE_NAME.fullmatch(holder)) is None:
        return None
    pid, ticks, boot, namespace = found.groups()
    return ProcessIdentity(int(pid), int(ticks), boot, namespace=None if namespace == "None" else int(namespace))


def process_of(home: Path, holder: str) -> int | None:
    """Return the process that ``holder`` computes in: a run's trainer, or a tune, whose children compute.

    None where it is not known, or not a process of this machine and container.
    """
    process = _tune_process(holder)
    if not holder.startswith(TUNE):
        process = RunDir(home / "runs" / holder).trainer_identity()
    return process.pid if process is not None and is_alive(process) else None


def tune_on(home: Path, spec: RunSpec) -> str:
    """Return the tune that holds a device of ``spec``, in words, or ""."""
    found = (holder(home, device) or "" for device in devices_of(spec))
    return next((described(user) for user in found if user.startswith(TUNE)), "")


def run_beside(home: Path, devices: list[str]) -> tuple[str, str] | None:
    """Return (device, run) of a run that shares one of ``devices`` without its lock, which ``--share-device`` does."""
    for path in (home / "runs").glob("*"):
        run = RunDir(path)
        if run.launch().share_device and run.has_trainer():
            with contextlib.suppress(UserError):  # damaged; its devices are not known
                for device in set(devices) & set(devices_of(run.spec())):
                    return device, run.id
    return None


def check_free(home: Path, spec: RunSpec) -> None:
    """Raise ``UserError`` where another run uses a device of ``spec``.

    Waits for a run that has just ended, because its trainer takes a moment to exit.
    """
    if user := tune_on(home, spec):
        raise UserError(
            f"{user} measures on the same device; wait for it with --queue, or stop it with Ctrl-C in its terminal"
        )
    deadline = time.monotonic() + EXIT_TIMEOUT
    for device in devices_of(spec):
        while run := holder(home, device):
            if RunDir(home / "runs" / run).ended() and time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            raise UserError(
                f"{device}: is in use by run {run}; wait for it with --queue, stop it with:"
                f" mla-tui stop {shlex.quote(run)}, or share the device with --share-device"
            )


def _path(home: Path, device: str) -> Path:
    return home / "devices" / f"{device}.lock"
