"""Ending the app when its terminal ends.

At the end of stdin Textual's input thread spins, and its writer thread dies on the first write, after which the event
loop may block for ever on a full queue. So a thread of our own looks at the terminal and has the last word.
"""

from __future__ import annotations

import os
import signal
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from textual.app import App

from profiles.errors import UserError

LOST_TERMINAL = 128 + signal.SIGHUP
_LOOK = 0.5  # seconds between two looks at the terminal
_PATIENCE = 3.0  # seconds for a clean end


def check_terminal() -> None:
    """Raises ``UserError`` where there is nothing to draw on, or it cannot show what the app draws."""
    without = "without one use: mla-tui ls, mla-tui status RUN, mla-tui watch RUN"
    # Keys come from stdin, and Textual draws on stderr.
    for name, stream in (("stdin", sys.stdin), ("stdout", sys.stdout), ("stderr", sys.__stderr__)):
        if stream is None or not stream.isatty():
            raise UserError(f"the app needs a terminal, and {name} is none; {without}")
    term = os.environ.get("TERM", "")
    if term in ("", "dumb", "unknown"):
        raise UserError(f"TERM={term}: the app needs a terminal whose cursor it can move; {without}")
    encoding = str(getattr(sys.__stderr__, "encoding", "utf-8"))
    if encoding.lower().replace("-", "") != "utf8":
        way = "start it with LC_ALL=C.UTF-8 if your terminal shows UTF-8"
        raise UserError(f"the locale's encoding is {encoding}, and the app draws in UTF-8: {way}")


class _Watch:
    def __init__(self, app: App[Any], fd: int) -> None:
        self.lost = False
        self._app = app
        self._fd = fd
        self._wake = threading.Event()
        self._done = threading.Event()

    def hang_up(self, signum: int, frame: FrameType | None) -> None:
        self.lost = True
        self._wake.set()

    def finish(self) -> None:
        self._done.set()
        self._wake.set()

    def run(self) -> None:
        while not self.lost and not self._done.is_set():
            self._wake.wait(_LOOK)
            self.lost = self.lost or not _is_there(self._fd)
        if self._done.is_set():
            return
        self._app.call_later(self._app.exit, None, LOST_TERMINAL)
        if not self._done.wait(_PATIENCE):
            os._exit(LOST_TERMINAL)


def _is_there(fd: int) -> bool:
    """A terminal that was hung up answers its attributes with an error, on Linux and macOS alike."""
    try:
        termios.tcgetattr(fd)
    except (termios.error, OSError):
        return False
    return True


@contextmanager
def watch_terminal(app: App[Any], fd: int) -> Iterator[_Watch]:
    """While the block runs, SIGHUP, SIGTERM or the end of the terminal behind ``fd`` ends ``app``."""
    watch = _Watch(app, fd)
    before = {number: signal.signal(number, watch.hang_up) for number in (signal.SIGHUP, signal.SIGTERM)}
    thread = threading.Thread(target=watch.run, name="terminal-watch", daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        watch.finish()
        for number, handler in before.items():
            signal.signal(number, handler)
