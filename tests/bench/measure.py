"""Tools of the benchmarks: a program in its own terminal, CPU time and memory of processes, medians."""

from __future__ import annotations

import os
import pty
import select
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

MLA_TUI = str(Path(sys.executable).parent / "mla-tui")
Size = tuple[int, int]
"""Columns and rows."""


class Settled(NamedTuple):
    """Seconds from exec to the first byte and to the last byte before the output stopped; bytes received."""

    first: float
    last: float
    received: int


class Pty:
    """A program in its own terminal, which answers no queries (as usual through ssh and tmux)."""

    def __init__(self, argv: Sequence[str], size: Size, env: Mapping[str, str] | None = None) -> None:
        import fcntl
        import termios

        self.fd, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
        environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", **(env or {})}
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            argv,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self.pid = self.process.pid

    def read_for(self, seconds: float, meanwhile: Callable[[], object] | None = None) -> int:
        """Return the number of bytes received within ``seconds``."""
        thread = threading.Thread(target=meanwhile) if meanwhile else None
        if thread:
            thread.start()
        total, deadline = 0, time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            total += len(self._read(left))
        if thread:
            thread.join()
        return total

    def read_until(self, text: bytes, timeout: float = 60.0) -> float:
        """Return the seconds from exec until ``text`` was received."""
        output, deadline = b"", time.monotonic() + timeout
        while text not in output:
            if time.monotonic() > deadline:
                raise TimeoutError(f"no {text!r} within {timeout:g} s")
            output += self._read(1.0)
        return time.perf_counter() - self.started

    def read_bytes(self, count: int, timeout: float = 60.0) -> float:
        """Return the seconds from exec until ``count`` bytes were received."""
        deadline = time.monotonic() + timeout
        while count > 0:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{count} bytes are missing after {timeout:g} s")
            count -= len(self._read(1.0))
        return time.perf_counter() - self.started

    def settle(self, quiet: float = 1.5, timeout: float = 120.0) -> Settled:
        """Read until nothing has arrived for ``quiet`` seconds after the first byte."""
        first = last = 0.0
        received, deadline = 0, time.monotonic() + timeout
        while time.monotonic() < deadline:
            data = self._read(quiet if first else 0.1)
            if data:
                last = time.perf_counter() - self.started
                first = first or last
                received += len(data)
            elif first:
                return Settled(first, last, received)
        raise TimeoutError(f"not quiet for {quiet:g} s within {timeout:g} s; {received} bytes received")

    def write(self, keys: bytes) -> None:
        os.write(self.fd, keys)

    def press(self, key: bytes) -> tuple[float, float]:
        """Return the seconds from writing ``key`` to the first byte after it, and the CPU time of these seconds."""
        while self._read(0.05):
            pass
        started, before = time.perf_counter(), main_thread_cpu(self.pid)
        self.write(key)
        if not self._read(5.0):
            raise TimeoutError(f"no output within 5 s after {key!r}")
        return time.perf_counter() - started, main_thread_cpu(self.pid) - before

    def _read(self, seconds: float) -> bytes:
        return os.read(self.fd, 1 << 16) if select.select([self.fd], [], [], seconds)[0] else b""

    def close(self) -> None:
        """Close the terminal, as a dropped ssh connection does."""
        os.close(self.fd)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def process_tree(pid: int) -> list[int]:
    """Return the process and its descendants."""
    try:
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.NoSuchProcess:
        return [pid]


def cpu(pid: int) -> float:
    """Return the CPU time used so far, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main_thread_cpu(pid: int) -> float:
    """Return the CPU time that the main thread has used so far, in seconds, to the nanosecond."""
    return int(Path(f"/proc/{pid}/schedstat").read_bytes().split()[0]) / 1e9


def rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak(pid: int) -> int:
    """Return the peak of resident memory, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


def pss(pid: int) -> int:
    """Return the proportional set size, in bytes: shared pages are divided among their processes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024


def wall_time(argv: Sequence[str]) -> float:
    started = time.perf_counter()
    subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def report(what: str, values: list[float], unit: str) -> None:
    median = statistics.median(values)
    print(f"{what}: median {median:.3f} {unit} (min {min(values):.3f}, max {max(values):.3f}, n {len(values)})")
