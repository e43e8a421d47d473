"""Runs the app in a real tmux for tests: reads its screen, sends keys, attaches and detaches clients."""

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
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tests.e2e.conftest import WaitFor

LOSS = r"loss \d+\.\d+ · steps 1–(\d+) \((\d+)\)"
Size = tuple[int, int]
"""Columns and rows."""


class Client:
    """A program on a terminal of ``size`` whose output is discarded."""

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
        """Read until the terminal is closed on either side."""
        while self._stop not in select.select([self._fd, self._stop], [], [])[0]:
            try:
                os.read(self._fd, 1 << 16)
            except OSError:
                break
        os.close(self._fd)

    def drop(self) -> None:
        """Close the terminal, as a lost ssh connection does."""
        os.write(self._wake, b"x")
        self.process.wait(30)


class Home(Protocol):
    """What a terminal needs of the ``Workspace`` in which its commands run."""

    env: dict[str, str]
    root: Path
    command: Path


class Terminal:
    """A tmux server of its own with one session."""

    def __init__(self, workspace: Home, wait_for: WaitFor) -> None:
        self.workspace = workspace
        self.wait_for = wait_for
        self.folder = Path(tempfile.mkdtemp(prefix="mla-tmux-"))  # short: a socket's path has 107 bytes
        self.env = {**workspace.env, "TMUX_TMPDIR": str(self.folder), "LC_ALL": "C.UTF-8", "TERM": "xterm-256color"}
        self.env.pop("TMUX", None)

    def tmux(self, *args: str, check: bool = True) -> str:
        argv = ["tmux", "-u", "-L", "mla", "-f", "/dev/null", *args]
        done = subprocess.run(argv, env=self.env, cwd=self.workspace.root, capture_output=True, text=True, timeout=30)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    def open(self, *args: str, size: Size = (80, 24), through: Sequence[str] = ()) -> int:
        """Start ``mla-tui`` in a session, or in another pane of it; return its pid.

        ``through`` is a command that runs it.
        """
        command = [*through, str(self.workspace.command), *args]
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
        """Attach a client with a terminal of its own; the window takes its size."""
        return Client(["tmux", "-u", "-L", "mla", "attach", "-t", "mla"], self.env, size)

    def wait_text(self, pattern: str, pane: int = 0) -> re.Match[str]:
        """Wait for ``pattern`` on the screen; return its first match."""
        seen = ""

        def poll() -> re.Match[str] | None:
            nonlocal seen
            seen = self.text(pane)
            time.sleep(0.05)  # polling tmux more often would take the cores from the run
            return re.search(pattern, seen)

        try:
            return self.wait_for(f"{pattern!r} on the screen", poll)
        except BaseException:
            print(seen)
            raise

    def wait_end(self, pane: int = 0) -> None:
        """Wait for the pane's program to exit; assert that it left no traceback on the screen.

        Its exit status is not used: tmux 3.3 sometimes misses the signal that reports it.
        """
        query = ["display-message", "-p", "-t", f"mla:0.{pane}", "#{pane_dead}"]
        self.wait_for("the end of the app", lambda: self.tmux(*query).strip() == "1")
        assert "Traceback" not in self.text(pane)

    def close(self) -> None:
        self.tmux("kill-server", check=False)
        shutil.rmtree(self.folder, ignore_errors=True)
