"""Identifies processes, checks whether they are alive, starts detached ones, and locks files.

The kernel reuses pids, so a process is identified by pid and start time, on one boot of one host. In a container, a pid
namespace, pids mean other processes than outside.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import signal
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta, Struct

from engine.host.private_dirs import private_opener

if TYPE_CHECKING:
    import subprocess

LOCK_FDS_ENV = "MLA_TUI_LOCK_FDS"  # descriptors of inherited locks, comma-separated


class ProcessIdentity(Struct, frozen=True, omit_defaults=True):
    """A process of this host: no other one has, or will have, the same identity."""

    pid: Annotated[int, Meta(ge=1, lt=1 << 31)]
    start_ticks: Annotated[int, Meta(ge=0, lt=1 << 53)]  # when it started, in a unit of the platform
    boot: str | None = None
    attempt: Annotated[int, Meta(ge=0, lt=1 << 53)] | None = None  # at its run, of a trainer
    namespace: Annotated[int, Meta(ge=0, lt=1 << 53)] | None = None  # in which its pid counts


def host_name() -> str:
    return platform.node()


@cache
def boot_id() -> str:
    """Return an identifier that changes with every boot."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        import psutil

        return str(int(psutil.boot_time()))


@cache
def pid_namespace() -> int | None:
    """Return which pid namespace this process is in; None where the platform has none."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return None


def start_ticks(pid: int) -> int | None:
    """Return when the process started, in a platform-specific unit; None if it does not exist or is a zombie."""
    if os.path.exists("/proc/self/stat"):
        try:
            # The command name may contain spaces and parentheses: count the fields after it (proc(5), field 22).
            with open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            return None
        return None if fields[0] in (b"Z", b"X") else int(fields[19])
    import psutil

    try:
        return int(psutil.Process(pid).create_time() * 100)
    except psutil.Error:
        return None


def command_line(pid: int) -> list[str]:
    """Return the words that a process was started with; none where they cannot be read."""
    if os.path.exists("/proc/self/cmdline"):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                return [os.fsdecode(word) for word in file.read().split(b"\0")]
        except OSError:
            return []
    import psutil

    try:
        return psutil.Process(pid).cmdline()
    except psutil.Error:
        return []


def process_identity(pid: int, attempt: int | None = None) -> ProcessIdentity:
    return ProcessIdentity(pid, start_ticks(pid) or 0, boot_id(), attempt, pid_namespace())


def is_visible(process: ProcessIdentity) -> bool:
    """Return whether the pid of ``process`` means the same process here: not one of another container."""
    return process.namespace in (None, pid_namespace())


def is_alive(process: ProcessIdentity | None) -> bool:
    """Return whether ``process`` is visible here and still runs on this boot."""
    if process is None or not is_visible(process):
        return False
    ticks = start_ticks(process.pid)
    return ticks is not None and ticks == process.start_ticks and process.boot in (None, boot_id())


def is_stopped(pid: int) -> bool:
    """Return whether the process was stopped by a signal (SIGSTOP, Ctrl-Z) and does nothing until SIGCONT."""
    import psutil

    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    except psutil.Error:
        return False


def inherited_lock_fds() -> tuple[int, ...]:
    """Return the open descriptors of locks inherited from the parent process (``engine/runs/device_locks.py``)."""
    numbers = (int(text) for text in os.environ.get(LOCK_FDS_ENV, "").split(",") if text.isdigit())
    return tuple(fd for fd in numbers if _is_open(fd))


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def spawn_detached(
    argv: Sequence[str],
    console: Path,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a process in a new session, without a terminal, and append its output to ``console``.

    ``env`` is added to our environment. The process inherits the descriptors ``pass_fds``.
    """
    import subprocess  # here, because ls starts no process

    with open(console, "ab", opener=private_opener) as out:
        return subprocess.Popen(
            argv,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=pass_fds,
        )


class Lock:
    """An advisory lock on a file. The kernel releases it when the process ends, however that happens.

    The file holds ``content``, so that what deletes empty files leaves it alone. Whoever holds a lock calls ``hold``
    every second, in case something deletes the file nevertheless.
    """

    def __init__(self, path: Path, content: str = "locked") -> None:
        self.path = path
        self.fd: int | None = None
        self._content = content.encode()

    def acquire(self, timeout: float = 0.0) -> bool:
        """Try for ``timeout`` seconds to acquire the lock; return False if another process holds it."""
        deadline = time.monotonic() + timeout
        while (fd := self._try()) is None:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        self.fd = fd
        return True

    def hold(self) -> bool:
        """Make the file again if it was deleted or replaced. Return False while another process locks the new one."""
        if self.fd is None or is_linked(self.path, self.fd):
            return True
        if (fd := self._try()) is None:
            return False
        os.close(self.fd)
        self.fd = fd
        return True

    def release(self) -> None:
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None

    def _try(self) -> int | None:
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        if not is_linked(self.path, fd):  # deleted since it was opened: another process would not see this lock
            os.close(fd)
            return None
        with contextlib.suppress(OSError):  # a full disk: the lock holds without
            os.ftruncate(fd, os.pwrite(fd, self._content, 0))
        return fd


def is_linked(path: Path, fd: int) -> bool:
    """Return whether ``path`` still names the open file ``fd``."""
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(fd))
    except OSError:
        return False


def is_locked(path: Path) -> bool:
    """Return whether a process holds the ``Lock`` on ``path``."""
    try:
        # A shared lock needs no more, and the disk may be read-only. O_NONBLOCK: a FIFO does not wait for its writer.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
