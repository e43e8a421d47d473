"""DeepSpeed's op is loaded whatever a killed run has left in its folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from engine.compiler import own_cache


def load(cache: Path, timeout: float) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environ = {**os.environ, "DS_ACCELERATOR": "cpu", "PATH": path, "XDG_CACHE_HOME": str(cache)}
    call = [sys.executable, "-m", "engine.train.cpu_adam"]
    subprocess.run(call, env=environ, check=True, timeout=timeout, capture_output=True)


def test_what_a_killed_run_left_is_no_reason_to_wait(tmp_path: Path) -> None:
    load(own_cache().parent, timeout=280)  # built, if it was not yet
    shutil.copytree(own_cache() / "torch_extensions", tmp_path / "mla-tui" / "torch_extensions")
    (folder,) = tmp_path.glob("mla-tui/torch_extensions/torch-*/cpu_adam")
    (folder / "lock").touch()  # as SIGKILL leaves it
    load(tmp_path, timeout=60)
    assert not (folder / "lock").exists()
