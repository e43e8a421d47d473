"""Runs a command behind a slow connection: ``python slow_line.py SECONDS FILE COMMAND…``.

COMMAND runs on a terminal of its own; its input and its output arrive SECONDS later. FILE receives the number of bytes
it has written. It sits between a real terminal and the app, as ssh does.
"""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
import tty
from collections import deque
from fcntl import ioctl
from pathlib import Path


class DelayedPipe:
    """One direction: bytes read from ``source`` are written to ``target`` after ``delay`` seconds."""

    def __init__(self, source: int, target: int, delay: float) -> None:
        self.source, self.target, self.delay = source, target, delay
        self.pending: deque[tuple[float, bytes]] = deque()
        self.total = 0

    def read(self) -> bool:
        """Read once; return whether there may be more."""
        try:
            data = os.read(self.source, 1 << 16)
        except OSError:  # Linux reports the end of a terminal as an error
            data = b""
        self.pending.append((time.monotonic() + self.delay, data))
        self.total += len(data)
        return bool(data)

    def deliver(self) -> None:
        while self.pending and self.pending[0][0] <= time.monotonic():
            data = self.pending.popleft()[1]
            while data:
                data = data[os.write(self.target, data) :]

    def wait(self) -> float | None:
        """Return the seconds until the next delivery, None without one."""
        return max(self.pending[0][0] - time.monotonic(), 0.0) if self.pending else None


def main(delay: float, counted: Path, argv: list[str]) -> int:
    here, there = pty.openpty()

    def resize(*_: object) -> None:
        ioctl(here, termios.TIOCSWINSZ, ioctl(0, termios.TIOCGWINSZ, b"\0" * 8))

    resize()
    signal.signal(signal.SIGWINCH, resize)
    before = termios.tcgetattr(0)
    tty.setraw(0)
    # The first terminal of the new session becomes its controlling terminal, as under sshd.
    start = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])"
    app = subprocess.Popen(
        [sys.executable, "-c", start, *argv], stdin=there, stdout=there, stderr=there, start_new_session=True
    )
    os.close(there)
    typed, shown = DelayedPipe(0, here, delay), DelayedPipe(here, 1, delay)
    running = True
    try:
        while running or shown.pending:
            waits = [wait for pipe in (typed, shown) if (wait := pipe.wait()) is not None]
            sources = [0, here] if running else []
            ready = select.select(sources, [], [], min(waits, default=None))[0]
            if 0 in ready:
                typed.read()
            if here in ready:
                running = shown.read()
                counted.write_text(str(shown.total))
            if running:
                typed.deliver()
            shown.deliver()
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
    return app.wait()


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]))
