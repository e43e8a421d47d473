"""``python slow_line.py SECONDS FILE COMMAND…``: a terminal at the far end of a slow line.

COMMAND runs on a terminal of its own; what is typed reaches it SECONDS later, and so does what it writes reach us. FILE
gets how many bytes it has written. This stands between a real terminal and the app as ssh does.
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


class Way:
    """One direction: what was read from ``source`` is written to ``target`` when its time has come."""

    def __init__(self, source: int, target: int, delay: float) -> None:
        self.source, self.target, self.delay = source, target, delay
        self.under_way: deque[tuple[float, bytes]] = deque()
        self.total = 0

    def take(self) -> bool:
        """Whether there is more to come."""
        try:
            data = os.read(self.source, 1 << 16)
        except OSError:  # Linux ends a terminal without a writer with an error
            data = b""
        self.under_way.append((time.monotonic() + self.delay, data))
        self.total += len(data)
        return bool(data)

    def deliver(self) -> None:
        while self.under_way and self.under_way[0][0] <= time.monotonic():
            data = self.under_way.popleft()[1]
            while data:
                data = data[os.write(self.target, data) :]

    def wait(self) -> float | None:
        """Seconds until the next delivery."""
        return max(self.under_way[0][0] - time.monotonic(), 0.0) if self.under_way else None


def main(delay: float, counted: Path, argv: list[str]) -> int:
    here, there = pty.openpty()

    def resize(*_: object) -> None:
        ioctl(here, termios.TIOCSWINSZ, ioctl(0, termios.TIOCGWINSZ, b"\0" * 8))

    resize()
    signal.signal(signal.SIGWINCH, resize)
    before = termios.tcgetattr(0)
    tty.setraw(0)
    # The new session's first terminal is its controlling one, as under sshd.
    start = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])"
    app = subprocess.Popen(
        [sys.executable, "-c", start, *argv], stdin=there, stdout=there, stderr=there, start_new_session=True
    )
    os.close(there)
    typed, shown = Way(0, here, delay), Way(here, 1, delay)
    going = True
    try:
        while going or shown.under_way:
            waits = [wait for way in (typed, shown) if (wait := way.wait()) is not None]
            ears = [0, here] if going else []
            heard = select.select(ears, [], [], min(waits, default=None))[0]
            if 0 in heard:
                typed.take()
            if here in heard:
                going = shown.take()
                counted.write_text(str(shown.total))
            if going:
                typed.deliver()
            shown.deliver()
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
    return app.wait()


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]))
