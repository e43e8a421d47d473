"""What a kill or a loss of power leaves in torch's cache of compiled code is removed."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from engine.execution.compile_cache import remove_incomplete


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_a_library_without_its_end_is_removed(tmp_path: Path) -> None:
    whole = tmp_path / "ab" / "whole.so"
    whole.parent.mkdir()
    argv = ["g++", "-shared", "-fPIC", "-x", "c++", "-", "-o", str(whole)]
    subprocess.run(argv, input=b'extern "C" int seven() { return 7; }', check=True)
    content = whole.read_bytes()
    cut = {0, 1, 63, 64, len(content) // 2, len(content) - 1}
    for size in cut:
        (tmp_path / f"{size}.so").write_bytes(content[:size])
    (tmp_path / "zeros.so").write_bytes(bytes(len(content)))
    (tmp_path / "other.so").write_bytes(b"not of this system" * 10)
    for path in tmp_path.rglob("*.so"):
        os.utime(path, (0, time.time() - 60))
    (tmp_path / "young.so").write_bytes(content[:100])  # perhaps being written
    assert {path.name for path in remove_incomplete(tmp_path)} == {"zeros.so", *(f"{size}.so" for size in cut)}
    assert {path.name for path in tmp_path.rglob("*.so")} == {"whole.so", "other.so", "young.so"}
    assert ctypes.CDLL(str(whole)).seven() == 7
    assert remove_incomplete(tmp_path / "missing") == []
