"""DeepSpeed's op is built once, and loads even after a killed run left a lock file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engine.events.types import Event, State
from engine.execution.compiler import user_cache_dir
from engine.train.backends.cpu_adam import build_name, is_built, load_cpu_adam
from engine.train.main import run_foreground
from profiles.errors import UserError
from tests.unit.train.tiny_runs import MakeSpec


def load(cache: Path, timeout: float, programs: Path | None = None) -> None:
    path = f"{programs}:{os.environ['PATH']}" if programs else os.environ["PATH"]
    environ = {**os.environ, "DS_ACCELERATOR": "cpu", "PATH": path, "XDG_CACHE_HOME": str(cache)}
    call = [sys.executable, "-m", "engine.train.backends.cpu_adam"]
    subprocess.run(call, env=environ, check=True, timeout=timeout, capture_output=True)


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """The op's build directory, copied to a cache of this test."""
    load(user_cache_dir().parent, timeout=280)  # built, if it was not yet
    shutil.copytree(user_cache_dir() / "torch_extensions", tmp_path / "mla-tui" / "torch_extensions")
    (folder,) = tmp_path.glob(f"mla-tui/torch_extensions/{build_name()}/cpu_adam")
    return folder


def test_another_ninja_rebuilds_nothing_and_the_lock_file_of_a_killed_run_does_not_block(
    built: Path, tmp_path: Path
) -> None:
    other = tmp_path / "bin" / "ninja"
    other.parent.mkdir()
    other.write_text("#!/bin/sh\nrm -f cpu_adam.so\nexit 1\n")
    other.chmod(0o755)
    (built / "lock").touch()  # as SIGKILL leaves it
    before = (built / "cpu_adam.so").stat()
    load(tmp_path, timeout=60, programs=other.parent)
    after = (built / "cpu_adam.so").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert not (built / "lock").exists()


def test_it_is_known_whether_it_is_built(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert is_built()
    (built / "cpu_adam.so").unlink()
    assert not is_built()


def test_a_run_says_that_it_builds(nano: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.train.backends.cpu_adam.is_built", lambda: False)
    shown: list[Event] = []
    spec = nano("backend=deepspeed", "steps=1", f"train.out={tmp_path}")
    assert run_foreground(spec, None, None, None, shown.append, lambda spec: None) == 0
    states = [(one.phase, one.reason) for one in shown if isinstance(one, State)]
    assert states[0] == ("starting", "compiling DeepSpeed's optimizer, once on this machine")
    assert ("running", "") in states


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"file/mla-tui/.*: Not a directory; set XDG_CACHE_HOME"):
        load_cpu_adam()
