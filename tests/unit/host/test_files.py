"""Atomic writes, and rotation of the console file."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from engine.events.status import Summary
from engine.host import files
from engine.host.files import rotate, write_atomic

WRITER = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
for n in range(20000):
    os.write(fd, b"%07d\\n" % n)
"""


@pytest.mark.parametrize("cuts", [True, False], ids=["cut at its beginning", "truncated"])
def test_a_console_is_rotated_while_a_process_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuts: bool
) -> None:
    console, rotated = tmp_path / "console.log", tmp_path / "console.log.1"
    console.write_bytes(bytes(8192))
    with open(console, "r+b") as file:
        if cuts and not files._collapse(file.fileno(), 4096):
            pytest.skip("this file system cannot take the beginning of a file away")
        file.truncate(0)
    if not cuts:
        monkeypatch.setattr(files, "_collapse", lambda fd, size: False)
    inode = console.stat().st_ino
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(console)])
    pieces: list[bytes] = []
    while writer.poll() is None or not pieces:
        if console.stat().st_size > 10_000:
            rotate(console, 10_000)
            pieces.append(rotated.read_bytes())
    assert console.stat().st_ino == inode
    if cuts:
        numbers = [int(line) for line in (b"".join(pieces) + console.read_bytes()).split()]
        assert numbers == list(range(20_000))
    else:  # the lines may be lost that were written between the end of the copy and the truncation; no other
        numbers = [int(line) for line in pieces[-1].split()]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) and numbers[-1] < 20_000
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_a_small_or_missing_console_is_not_rotated(tmp_path: Path) -> None:
    rotate(tmp_path / "none", 10)
    console = tmp_path / "console.log"
    console.write_text("few")
    rotate(console, 3)
    assert [p.name for p in tmp_path.iterdir()] == ["console.log"]


def test_a_console_that_cannot_be_copied_is_kept(tmp_path: Path) -> None:
    console = tmp_path / "console.log"
    console.write_text("x" * 100)
    (tmp_path / ".console.log.1").mkdir()
    rotate(console, 10)
    assert console.read_text() == "x" * 100


@pytest.mark.parametrize("times", [1, 3000])  # the file system cuts whole blocks
def test_logs_follows_a_console_across_a_rotation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes], times: int
) -> None:
    from engine.events.run_dir import RunDir
    from tui.cli.commands import logs

    path = tmp_path / "console.log"
    path.write_bytes(b"one\n" * times)
    run = RunDir(tmp_path)
    monkeypatch.setattr(logs, "find_run", lambda _: run)
    looks = iter([b"two\n", b"three\n", b"four\n", None])

    def meanwhile(*_: object) -> Summary:
        """Between two polls the console is written to, rotated, and written to again."""
        text = next(looks)
        if text is not None:
            with open(path, "ab") as file:
                file.write(text * times)
        if text == b"three\n":
            rotate(path, 1)
        return Summary(phase="running" if text is not None else "finished")

    monkeypatch.setattr(RunDir, "summary", meanwhile)
    args = type("Args", (), {"run": "x", "follow": True})()
    assert logs.run(args) == 0
    assert capfdbinary.readouterr().out == b"".join(
        line * times for line in (b"one\n", b"two\n", b"three\n", b"four\n")
    )


def test_an_atomic_write_is_private_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    target = tmp_path / "state.json"
    errors: list[OSError] = []

    def write(byte: bytes) -> None:
        try:
            write_atomic(target, byte * 10_000, fsync=False)
        except OSError as error:
            errors.append(error)

    for byte in (b"a", b"b"):
        thread = threading.Thread(target=write, args=(byte,))
        thread.start()
        thread.join()
    assert (target.read_bytes(), errors) == (b"b" * 10_000, [])
    assert target.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["state.json"]
