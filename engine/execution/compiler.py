"""Checks without importing torch whether torch.compile can work on this machine."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

from profiles.install_command import install_package
from profiles.paths import user_dir

PYTHON_HEADERS = "the headers of Python"
COMPILERS = {"cuda": ("CC", ("gcc", "clang", "cc")), "cpu": ("CXX", ("g++", "clang++", "c++"))}


def compile_problem(device: str) -> str | None:
    """Return what ``torch.compile`` needs on ``device`` (cuda or cpu) and this machine lacks, or None.

    On a CPU it generates C++; on a GPU it generates Triton kernels, whose launchers are C. Both are compiled as
    extension modules, which takes Python's headers.
    """
    if device == "cuda" and find_spec("triton") is None:
        return f"triton is not installed; install it with {install_package('triton')}"
    variable, programs = COMPILERS[device]
    chosen = os.environ.get(variable)
    if not any(map(shutil.which, (chosen,) if chosen else programs)):
        missing = f"{variable}={chosen} is not a program" if chosen else f"{' or '.join(programs)} is not installed"
        return f"{missing}; install it with {_install_command(programs[0])}"
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if not header.is_file():
        return f"{header} is missing; install Python's headers with {_install_command(PYTHON_HEADERS)}"
    return None


def _install_command(package: str) -> str:
    """Return the command that installs a program, or ``PYTHON_HEADERS``, with this system's package manager."""
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    names = {"apt-get": "apt install", "dnf": "dnf install", "zypper": "zypper install", "pacman": "pacman -S"}
    for manager, command in names.items():
        if shutil.which(manager):
            headers = {"apt-get": f"{python}-dev", "pacman": "python"}.get(manager, f"{python}-devel")
            rpm = {"g++": "gcc-c++"} if manager in ("dnf", "zypper") else {"g++": "gcc"} if manager == "pacman" else {}
            return f"sudo {command} {headers if package == PYTHON_HEADERS else rpm.get(package, package)}"
    return f"the system's package manager: {package}"


def inductor_cache_dir() -> Path | None:
    """Return TORCHINDUCTOR_CACHE_DIR, or our default: all runs share one cache of compiled code.

    None where that cannot be written, as without a home directory: torch then takes a folder for temporary files.
    """
    if chosen := os.environ.get("TORCHINDUCTOR_CACHE_DIR"):
        return Path(chosen)
    folder = user_cache_dir() / "inductor"
    existing = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    return folder if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK) else None


def user_cache_dir() -> Path:
    """Return the directory for files that can be built again."""
    return user_dir("XDG_CACHE_HOME", "~/.cache") / "mla-tui"
