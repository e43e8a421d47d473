"""The app checks its terminal on start and ends with it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.unit.tui.terminals import read_to_end

ROOT = Path(__file__).parents[3]
RUN = "from engine.runs.store import RunStore; from tui.app.start import run_app; raise SystemExit(run_app(RunStore()))"


def start_on_terminal(
    home: Path, controlling: bool = True, code: str = RUN, env: dict[str, str] | None = None
) -> tuple[subprocess.Popen[bytes], int]:
    """Start the app on its own terminal; return it and the other end of the terminal."""
    homes = {"MLA_TUI_HOME": str(home), "XDG_CONFIG_HOME": str(home)}
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    launcher = "import os, sys, fcntl, termios; os.setsid();"
    if controlling:
        launcher += "fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    launcher += "os.execv(sys.executable, [sys.executable, '-c', sys.argv[1]])"
    app = subprocess.Popen(
        [sys.executable, "-c", launcher, code],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=ROOT,
        env={**os.environ, "TERM": "xterm-256color", **homes, **(env or {})},
    )
    os.close(slave)
    return app, master


def start_and_draw(home: Path, controlling: bool, code: str = RUN) -> tuple[subprocess.Popen[bytes], int]:
    """The same, after the app has drawn its first screen."""
    app, master = start_on_terminal(home, controlling, code)
    output = b""
    while b"no runs yet" not in output:
        output += os.read(master, 65536)
    return app, master


@pytest.mark.timeout(60)
@pytest.mark.parametrize("controlling", [True, False], ids=["hangup", "end of input"])
def test_the_app_ends_when_the_terminal_closes(tmp_path: Path, controlling: bool) -> None:
    app, master = start_and_draw(tmp_path, controlling)
    try:
        os.close(master)
        assert app.wait(10) == 128 + signal.SIGHUP
    finally:
        app.kill()
        app.wait()


FAILS = f"from tui.app.app import MlaApp; MlaApp.action_help = lambda app: 1 / 0; {RUN}"
LEAVES = ("\x1b[?1049l", "\x1b[?25h", "\x1b[?1000l", "\x1b[?2004l")  # the other screen, with a cursor, without mouse


@pytest.mark.timeout(60)
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, None], ids=str)
def test_a_signal_or_a_failure_gives_its_status_and_leaves_the_terminal_as_it_was(
    tmp_path: Path, signum: signal.Signals | None
) -> None:
    app, master = start_and_draw(tmp_path, True, RUN if signum else FAILS)
    drawing = termios.tcgetattr(master)
    try:
        if signum is None:
            os.write(master, b"?")
        else:
            os.kill(app.pid, signum)
        output = read_to_end(master)
        assert all(sequence in output for sequence in LEAVES)
        assert app.wait(10) == (1 if signum is None else 128 + signum)
        lines = termios.tcgetattr(master)[3]
        assert lines & termios.ECHO and lines & termios.ICANON and not drawing[3] & termios.ECHO
        assert ("ZeroDivisionError" in output.rpartition(LEAVES[0])[2]) == (signum is None)
    finally:
        app.kill()
        app.wait()
        os.close(master)


@pytest.mark.timeout(60)
def test_the_process_ends_though_a_thread_of_the_app_does_not(tmp_path: Path) -> None:
    endless = f"import threading; threading.Thread(target=threading.Event().wait).start(); {RUN}"
    app, master = start_and_draw(tmp_path, True, endless)
    try:
        os.close(master)
        assert app.wait(20) == 128 + signal.SIGHUP
    finally:
        app.kill()
        app.wait()


@pytest.mark.timeout(60)
def test_bytes_that_are_not_utf_8_are_shown_and_q_exits_with_status_0(tmp_path: Path) -> None:
    app, master = start_and_draw(tmp_path, True)
    try:
        os.write(master, b"/caf\xe9s")  # as a Latin-1 terminal sends it
        output = b""
        while "caf�s".encode() not in output:
            output += os.read(master, 65536)
        os.write(master, b"\x1b\xff")
        os.write(master, b"\x11")  # Ctrl+Q
        assert "Traceback" not in read_to_end(master)
        assert app.wait(10) == 0
    finally:
        app.kill()
        app.wait()
        os.close(master)


def test_without_a_terminal_the_error_names_other_commands() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", RUN], stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=ROOT, timeout=30
    )
    assert "the app needs a terminal" in ended.stderr


MAIN = "from tui.cli.main import main; raise SystemExit(main([]))"
STDERR_TO_NULL = f"import os; os.dup2(os.open(os.devnull, os.O_WRONLY), 2); import sys; sys.stderr = sys.stdout; {MAIN}"


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("code", "env", "line"),
    [
        (MAIN, {"TERM": "dumb"}, "mla-tui: TERM=dumb: the app needs a terminal with cursor movement"),
        (MAIN, {"TERM": ""}, "mla-tui: TERM=: the app needs a terminal"),
        (MAIN, {"PYTHONIOENCODING": "latin-1"}, "mla-tui: PYTHONIOENCODING=latin-1: the app draws in UTF-8; start it"),
        (
            MAIN,
            {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
            "the locale's encoding is ascii, and the app draws in UTF-8",
        ),
        (STDERR_TO_NULL, {}, "the app needs a terminal, and stderr is none"),
    ],
    ids=["dumb", "none", "latin-1", "C", "stderr"],
)
def test_an_unsuitable_terminal_is_refused_in_one_line(
    code: str, env: dict[str, str], line: str, tmp_path: Path
) -> None:
    app, master = start_on_terminal(tmp_path, code=code, env=env)
    try:
        output = read_to_end(master)
        assert line in output and output.count("\n") == 1 and "\x1b" not in output
        assert app.wait(10) != 0
    finally:
        app.kill()
        app.wait()
        os.close(master)


@pytest.mark.timeout(60)
def test_refused_settings_are_printed_before_the_app_starts(tmp_path: Path) -> None:
    path = tmp_path / "mla-tui" / "settings.toml"
    path.parent.mkdir()
    path.write_text('theme = "pink"')
    app, master = start_on_terminal(tmp_path, code=MAIN)
    try:
        output = b""
        while b"no runs yet" not in output:
            output += os.read(master, 65536)
        assert f"mla-tui: {path}: theme: 'pink' is not one of".encode() in output.partition(b"\x1b")[0]
    finally:
        app.kill()
        app.wait()
        os.close(master)


@pytest.mark.timeout(60)
@pytest.mark.skipif(shutil.which("tmux") is None or not hasattr(os, "pidfd_open"), reason="needs tmux on Linux")
def test_the_app_ends_when_the_tmux_server_is_killed(tmp_path: Path) -> None:
    tmux = ["tmux", "-S", str(tmp_path / "t"), "-f", "/dev/null"]
    env = {**os.environ, "MLA_TUI_HOME": str(tmp_path / "home"), "XDG_CONFIG_HOME": str(tmp_path), "TMUX": ""}
    command = shlex.join(["exec", sys.executable, "-c", RUN]).replace("'exec'", "exec")
    subprocess.run([*tmux, "new-session", "-d", "-x", "80", "-y", "24", command], cwd=ROOT, env=env, check=True)

    def tmux_output(*arguments: str) -> str:
        return subprocess.run([*tmux, *arguments], capture_output=True, text=True, check=True).stdout

    while "no runs yet" not in tmux_output("capture-pane", "-p"):
        pass
    server, app = (int(tmux_output("display", "-p", f"#{{{name}}}")) for name in ("pid", "pane_pid"))
    pidfd = os.pidfd_open(app)
    try:
        os.kill(server, signal.SIGKILL)
        assert select.select([pidfd], [], [], 10)[0], "the app outlived its terminal"
    finally:
        os.close(pidfd)
