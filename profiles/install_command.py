"""Says how to install a package where this program runs: by the tool that installed it, uv or pipx, or by pip.

uv and pipx leave a file in the environment that they made. Each has its own command, and uv forgets what a command does
not name again.
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
import sys
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path

import msgspec

from profiles.errors import UserError
from profiles.reader import read_toml

NAME = "mla-tui"
TORCH_WHEELS = "https://download.pytorch.org/whl"
_UV, _PIPX = "uv-receipt.toml", "pipx_metadata.json"


def install_extra(extra: str) -> str:
    """Return the command that installs an extra of ours, such as "torchao"."""
    if receipt := _uv_receipt():
        return _uv_tool(receipt, extra=extra)
    requirement = f"{_own_requirement()}[{extra}]"
    # pipx inject would make it the package that pipx upgrades, which no index may have.
    return _runpip(requirement) if _has(_PIPX) else _pip(requirement)


def install_package(package: str) -> str:
    """Return the command that installs another package."""
    if receipt := _uv_receipt():
        return _uv_tool(receipt, package=package)
    if _has(_PIPX):
        return shlex.join(["pipx", "inject", Path(sys.prefix).name, package])
    return _pip(package)


def install_torch(build: str) -> str:
    """Return the command that replaces torch by the wheel for ``build``, such as "cu128"."""
    if receipt := _uv_receipt():
        return _uv_tool(receipt, "--torch-backend", build, "--reinstall-package", "torch")
    words = ["--force-reinstall", "torch", "--index-url", f"{TORCH_WHEELS}/{build}"]
    return _runpip(*words) if _has(_PIPX) else _pip(*words)


class _Requirement(msgspec.Struct):
    """What ``uv tool install`` was given: a package, and which of its extras."""

    name: str
    extras: list[str] = []


class _Tool(msgspec.Struct):
    requirements: list[_Requirement]


class _Receipt(msgspec.Struct):
    tool: _Tool


def _has(file: str) -> bool:
    return (Path(sys.prefix) / file).is_file()


def _uv_receipt() -> list[_Requirement]:
    """Return all that ``uv tool install`` was given; empty where it did not make this environment."""
    if not _has(_UV):
        return []
    with contextlib.suppress(OSError, UserError, msgspec.ValidationError):
        return msgspec.convert(read_toml(Path(sys.prefix) / _UV), _Receipt).tool.requirements
    return [_Requirement(NAME)]


def _uv_tool(receipt: list[_Requirement], *options: str, extra: str = "", package: str = "") -> str:
    """Return ``uv tool install`` with all that was installed before, and what is new."""
    extras = {name for one in receipt if one.name == NAME for name in (*one.extras, extra) if name}
    beside = dict.fromkeys(name for name in (*(one.name for one in receipt), package) if name not in (NAME, ""))
    own = f"{NAME}[{','.join(sorted(extras))}]" if extras else NAME
    return shlex.join(["uv", "tool", "install", *options, *(w for name in beside for w in ("--with", name)), own])


def _runpip(*words: str) -> str:
    return shlex.join(["pipx", "runpip", Path(sys.prefix).name, "install", *words])


def _pip(*words: str) -> str:
    """Return the command for this Python: ``pip`` alone where that is its own."""
    pip = shutil.which("pip")
    if pip is not None and Path(pip).parent == Path(sys.prefix) / "bin":
        return shlex.join(["pip", "install", *words])
    # Not importlib's find_spec: setuptools takes a search for pip as its start, and cannot be imported after that.
    if PathFinder.find_spec("pip") is None:  # an environment of uv has none
        return shlex.join(["uv", "pip", "install", "--python", sys.executable, *words])
    return shlex.join([sys.executable, "-m", "pip", "install", *words])


@cache
def _own_requirement() -> str:
    """Return our name, or the folder of the clone that runs without being installed."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        distribution(NAME)
    except PackageNotFoundError:
        return str(Path(__file__).parents[1])
    return NAME
