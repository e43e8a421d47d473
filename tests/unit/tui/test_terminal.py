"""The app ends when its terminal does."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
RUN = "from engine.jobs.store import Store; from tui.app import run_app; raise SystemExit(run_app(Store()))"


def start(home: Path, controlling: bool) -> tuple[subprocess.Popen[bytes], int]:
    """The app on a terminal of its own, once it has drawn itself; the other end of the terminal."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    launcher = "import os, sys, fcntl, termios; os.setsid();"
    if controlling:
        launcher += "fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    launcher += "os.execv(sys.executable, [sys.executable, '-c', sys.argv[1]])"
    app = subprocess.Popen(
        [sys.executable, "-c", launcher, RUN],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=ROOT,
        env={**os.environ, "TERM": "xterm-256color", "MLA_TUI_HOME": str(home)},
    )
    os.close(slave)
    seen = b""
    while b"no runs yet" not in seen:
        seen += os.read(master, 65536)
    return app, master


@pytest.mark.timeout(60)
@pytest.mark.parametrize("controlling", [True, False], ids=["hangup", "end of input"])
def test_the_app_ends_when_the_terminal_disappears(tmp_path: Path, controlling: bool) -> None:
    app, master = start(tmp_path, controlling)
    try:
        os.close(master)
        assert app.wait(10) == 128 + signal.SIGHUP
    finally:
        app.kill()
        app.wait()


@pytest.mark.timeout(60)
def test_q_leaves_with_success(tmp_path: Path) -> None:
    app, master = start(tmp_path, True)
    try:
        os.write(master, b"q")
        try:
            while os.read(master, 65536):
                pass
        except OSError:
            pass  # Linux ends a terminal without a writer with an error
        assert app.wait(10) == 0
    finally:
        app.kill()
        app.wait()
        os.close(master)


def test_without_a_terminal_it_says_what_to_use() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", RUN], stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=ROOT, timeout=30
    )
    assert "the app needs a terminal" in ended.stderr
