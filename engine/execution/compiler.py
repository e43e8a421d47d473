"""Whether torch.compile can work here. No torch: the answer must come before a run is launched."""

from __future__ import annotations

import os
import shutil
import sysconfig
from importlib.util import find_spec
from pathlib import Path

COMPILERS = {"cuda": ("CC", ("gcc", "clang", "cc")), "cpu": ("CXX", ("g++", "clang++", "c++"))}


def compile_problem(device: str) -> str | None:
    """What ``torch.compile`` would need on ``device`` (cuda or cpu) and does not find; None where nothing is.

    On a CPU it writes C++ for a compiler; on a card it writes for Triton, whose launchers are C. Both are modules for
    this Python.
    """
    if device == "cuda" and find_spec("triton") is None:
        return "triton is not installed; install it with pip install triton"
    variable, programs = COMPILERS[device]
    named = os.environ.get(variable)
    if not any(map(shutil.which, (named,) if named else programs)):
        asked = f"{variable}={named} is no program" if named else f"there is no {' or '.join(programs)}"
        return f"{asked}; install {programs[0]} with the system's package manager"
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if not header.is_file():
        return f"there is no {header}; install Python's headers, python3-dev or the like"
    return None


def inductor_cache_dir() -> Path:
    """Where compiled code is kept from run to run, unless TORCHINDUCTOR_CACHE_DIR says otherwise."""
    if own := os.environ.get("TORCHINDUCTOR_CACHE_DIR"):
        return Path(own)
    return user_cache_dir() / "inductor"


def user_cache_dir() -> Path:
    """What may be lost, at the price of being built again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mla-tui"
