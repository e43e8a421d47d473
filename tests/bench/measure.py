"""What the benchmarks measure with: a program in a terminal of its own, its processor time and memory, medians."""

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
    """Seconds from exec to the first byte and to the last one before the silence; how many bytes came."""

    first: float
    last: float
    sent: int


class Pty:
    """A program in a terminal of its own. The terminal answers no queries, as most ways through ssh and tmux do not."""

    def __init__(self, argv: Sequence[str], size: Size, env: Mapping[str, str] | None = None) -> None:
        import fcntl
        import termios

        self.fd, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
        given = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", **(env or {})}
        self.begun = time.perf_counter()
        self.process = subprocess.Popen(
            argv,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=given,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)
        self.pid = self.process.pid

    def read_for(self, seconds: float, meanwhile: Callable[[], object] | None = None) -> int:
        """Bytes that came within ``seconds``."""
        thread = threading.Thread(target=meanwhile) if meanwhile else None
        if thread:
            thread.start()
        total, deadline = 0, time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            total += len(self._read(left))
        if thread:
            thread.join()
        return total

    def read_until(self, text: bytes, patience: float = 60.0) -> float:
        """Seconds from exec until ``text`` has come."""
        seen, deadline = b"", time.monotonic() + patience
        while text not in seen:
            if time.monotonic() > deadline:
                raise TimeoutError(f"no {text!r} within {patience:g} s")
            seen += self._read(1.0)
        return time.perf_counter() - self.begun

    def read_bytes(self, count: int, patience: float = 60.0) -> float:
        """Seconds from exec until ``count`` bytes have come."""
        deadline = time.monotonic() + patience
        while count > 0:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{count} bytes are still missing after {patience:g} s")
            count -= len(self._read(1.0))
        return time.perf_counter() - self.begun

    def settle(self, quiet: float = 1.5, patience: float = 120.0) -> Settled:
        """Read until nothing has come for ``quiet`` seconds after something did."""
        first = last = 0.0
        sent, deadline = 0, time.monotonic() + patience
        while time.monotonic() < deadline:
            data = self._read(quiet if first else 0.1)
            if data:
                last = time.perf_counter() - self.begun
                first = first or last
                sent += len(data)
            elif first:
                return Settled(first, last, sent)
        raise TimeoutError(f"not quiet for {quiet:g} s within {patience:g} s; {sent} bytes came")

    def write(self, keys: bytes) -> None:
        os.write(self.fd, keys)

    def press(self, key: bytes) -> float:
        """Seconds from writing ``key`` to the first byte that comes after it."""
        while self._read(0.05):
            pass
        begun = time.perf_counter()
        self.write(key)
        while not self._read(5.0):
            raise TimeoutError(f"{key!r} was not answered within 5 s")
        return time.perf_counter() - begun

    def _read(self, seconds: float) -> bytes:
        return os.read(self.fd, 1 << 16) if select.select([self.fd], [], [], seconds)[0] else b""

    def close(self) -> None:
        """Take the terminal away, as a dropped ssh does."""
        os.close(self.fd)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def family(pid: int) -> list[int]:
    """The process and all it has started."""
    try:
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.NoSuchProcess:
        return [pid]


def cpu(pid: int) -> float:
    """Seconds of processor time so far."""
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak(pid: int) -> int:
    """The most that was ever resident."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


def pss(pid: int) -> int:
    """Resident bytes, those shared with other processes divided among them."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024


def wall(argv: Sequence[str]) -> float:
    begun = time.perf_counter()
    subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begun


def tell(what: str, values: list[float], unit: str) -> None:
    median = statistics.median(values)
    print(f"{what}: median {median:.3f} {unit} (min {min(values):.3f}, max {max(values):.3f}, n {len(values)})")
