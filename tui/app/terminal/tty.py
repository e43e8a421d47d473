"""Checks that the terminal can show the app, and ends the app when the terminal closes.

At the end of stdin Textual's input thread spins, and its writer thread dies on the first write, after which the event
loop can block forever on a full queue. And an app that fails while it stops can leave these threads behind, for which
Python waits at exit. So a thread polls the terminal. It ends the process if the app does not end, or ends without it.
"""

from __future__ import annotations

import os
import signal
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from textual.app import App

from profiles.errors import UserError

_ENDING = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)  # with the status that a shell gives for them
_POLL_INTERVAL = 0.5  # seconds
_EXIT_TIMEOUT = 3.0  # seconds for a clean exit


def check_terminal() -> None:
    """Raise ``UserError`` if there is no terminal, or if it cannot show what the app draws."""
    alternatives = "without one use: mla-tui ls, mla-tui status RUN, mla-tui watch RUN"
    # Keys come from stdin, and Textual draws on stderr.
    for name, stream in (("stdin", sys.stdin), ("stdout", sys.stdout), ("stderr", sys.__stderr__)):
        if stream is None or not stream.isatty():
            raise UserError(f"the app needs a terminal, and {name} is none; {alternatives}")
    term = os.environ.get("TERM", "")
    if term in ("", "dumb", "unknown"):
        raise UserError(f"TERM={term}: the app needs a terminal with cursor movement; {alternatives}")
    encoding = str(getattr(sys.__stderr__, "encoding", "utf-8"))
    if encoding.lower().replace("-", "") != "utf8":
        if given := os.environ.get("PYTHONIOENCODING", "").partition(":")[0]:
            raise UserError(f"PYTHONIOENCODING={given}: the app draws in UTF-8; start it without, or with utf-8")
        fix = "start it with LC_ALL=C.UTF-8 if your terminal shows UTF-8"
        raise UserError(f"the locale's encoding is {encoding}, and the app draws in UTF-8: {fix}")


class TerminalWatch:
    """Ends ``app`` when the terminal behind ``fd`` closes or a signal asks for it; ``signum`` says which one.

    A terminal that closes counts as SIGHUP.
    """

    def __init__(self, app: App[Any], fd: int) -> None:
        self.signum: int | None = None
        self._app = app
        self._fd = fd
        self._wake = threading.Event()
        self._stopped = threading.Event()

    def on_signal(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        self._wake.set()

    @property
    def exit_code(self) -> int:
        """The exit status of the app, as far as it is known."""
        return self._app.return_code or 0 if self.signum is None else 128 + self.signum

    def stop(self) -> None:
        self._stopped.set()
        self._wake.set()

    def run(self) -> None:
        while self.signum is None and not self._stopped.is_set():
            self._wake.wait(_POLL_INTERVAL)
            if self.signum is None and not _is_open(self._fd):
                self.signum = signal.SIGHUP
        if not self._stopped.is_set():
            self._app.call_later(self._app.exit, None, self.exit_code)
            self._stopped.wait(_EXIT_TIMEOUT)
        time.sleep(_EXIT_TIMEOUT)  # in a daemon thread: it ends here if the process exits
        os._exit(self.exit_code)


def _is_open(fd: int) -> bool:
    """Return whether the terminal still exists: after a hangup, reading its attributes fails on Linux and macOS."""
    try:
        termios.tcgetattr(fd)
    except (termios.error, OSError):
        return False
    return True


@contextmanager
def exit_with_terminal(app: App[Any], fd: int) -> Iterator[TerminalWatch]:
    """While the block runs, end ``app`` on SIGHUP, SIGTERM, SIGINT and when the terminal behind ``fd`` closes.

    The block is the last thing that a process does: soon after it the process ends, whatever threads it still has.
    """
    watch = TerminalWatch(app, fd)
    before = {number: signal.signal(number, watch.on_signal) for number in _ENDING}
    thread = threading.Thread(target=watch.run, name="terminal-watch", daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        watch.stop()
        for number, handler in before.items():
            signal.signal(number, handler)
        if not _is_open(fd):
            _write_nowhere()


def _write_nowhere() -> None:
    """Have what is still buffered for a terminal that is gone written nowhere, or Python's exit would fail on it."""
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    for fd in (1, 2):
        os.dup2(null, fd)
    os.close(null)
