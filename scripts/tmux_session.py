"""Runs the app in a real tmux, types keys, reads the screen, attaches and drops clients."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

T = TypeVar("T")
Size = tuple[int, int]
"""Columns and rows."""


class WaitFor(Protocol):
    """Calls ``poll`` until it returns something true, and returns that; fails with ``what`` after a time limit."""

    def __call__(self, what: str, poll: Callable[[], T | None], /) -> T: ...


class Client:
    """A program on a pseudo-terminal of ``size`` whose output is discarded."""

    def __init__(self, argv: Sequence[str], env: dict[str, str], size: Size) -> None:
        self._fd, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
        self.process = subprocess.Popen(
            argv, env=env, start_new_session=True, stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        self._stop, self._wake = os.pipe()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        """Discard output until either side closes the terminal."""
        while self._stop not in select.select([self._fd, self._stop], [], [])[0]:
            try:
                os.read(self._fd, 1 << 16)
            except OSError:
                break
        os.close(self._fd)

    def drop(self) -> None:
        """Close the terminal, as a dropped ssh connection does."""
        os.write(self._wake, b"x")
        self.process.wait(30)


class TmuxSession:
    """One session on its own tmux server, in which ``command`` runs in the directory ``cwd``."""

    def __init__(self, command: Path, env: dict[str, str], cwd: Path, wait_for: WaitFor) -> None:
        self.command, self.cwd = command, cwd
        self.wait_for = wait_for
        self.folder = Path(tempfile.mkdtemp(prefix="mla-tmux-"))  # short: a socket path has at most 107 bytes
        self.env = {**env, "TMUX_TMPDIR": str(self.folder), "LC_ALL": "C.UTF-8", "TERM": "xterm-256color"}
        self.env.pop("TMUX", None)

    def tmux(self, *args: str, check: bool = True) -> str:
        argv = ["tmux", "-u", "-L", "mla", "-f", "/dev/null", *args]
        result = subprocess.run(argv, env=self.env, cwd=self.cwd, capture_output=True, text=True, timeout=30)
        assert not check or result.returncode == 0, result.stderr
        return result.stdout

    def open(self, *args: str, size: Size = (80, 24), through: Sequence[str] = ()) -> int:
        """Start the command in a new session, or in a second pane if there is one; return its pid.

        ``through`` is a wrapper command that starts it.
        """
        command = [*through, str(self.command), *args]
        if self.tmux("list-sessions", check=False):
            return int(self.tmux("split-window", "-t", "mla", "-v", "-P", "-F", "#{pane_pid}", *command))
        width, height = map(str, size)
        settings = {"default-terminal": "tmux-256color", "remain-on-exit": "on", "status": "off"}
        options = [word for name, value in settings.items() for word in ("set-option", "-g", name, value, ";")]
        self.tmux(*options, "new-session", "-d", "-s", "mla", "-x", width, "-y", height, *command)
        return int(self.tmux("list-panes", "-t", "mla", "-F", "#{pane_pid}"))

    def keys(self, *keys: str, pane: int = 0) -> None:
        self.tmux("send-keys", "-t", f"mla:0.{pane}", *keys)

    def text(self, pane: int = 0) -> str:
        return self.tmux("capture-pane", "-p", "-t", f"mla:0.{pane}")

    def escapes(self) -> str:
        """Return the screen with the escape sequences of its colours."""
        return self.tmux("capture-pane", "-e", "-N", "-p", "-t", "mla:0.0")

    def resize(self, size: Size) -> None:
        width, height = map(str, size)
        self.tmux("resize-window", "-t", "mla", "-x", width, "-y", height)

    def client(self, size: Size) -> Client:
        """Attach to the session from another terminal; the window takes its size."""
        return Client(["tmux", "-u", "-L", "mla", "attach", "-t", "mla"], self.env, size)

    def wait_text(self, pattern: str, pane: int = 0) -> re.Match[str]:
        """Wait until ``pattern`` is on the screen, and return its first match."""
        screen = ""

        def poll() -> re.Match[str] | None:
            nonlocal screen
            screen = self.text(pane)
            time.sleep(0.05)  # a hundred captures a second would take CPU time from the run
            return re.search(pattern, screen)

        try:
            return self.wait_for(f"{pattern!r} on the screen", poll)
        except BaseException:
            print(screen)
            raise

    def wait_end(self, pane: int = 0) -> None:
        """Wait for the pane's program to exit; fail if it left a traceback.

        Its exit status is not checked: tmux 3.3 sometimes misses SIGCHLD.
        """
        query = ["display-message", "-p", "-t", f"mla:0.{pane}", "#{pane_dead}"]
        self.wait_for("the app to exit", lambda: self.tmux(*query).strip() == "1")
        assert "Traceback" not in self.text(pane)

    def close(self) -> None:
        self.tmux("kill-server", check=False)
        shutil.rmtree(self.folder, ignore_errors=True)
