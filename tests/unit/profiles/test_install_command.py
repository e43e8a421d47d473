"""The command that installs a package fits how this program was installed."""

from __future__ import annotations

import subprocess
import sys
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

from profiles import install_command
from profiles.install_command import install_extra, install_package, install_torch

WHEELS = "--force-reinstall torch --index-url https://download.pytorch.org/whl/cu128"


@pytest.fixture
def prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "mla-tui"
    (folder / "bin").mkdir(parents=True)
    monkeypatch.setattr(sys, "prefix", str(folder))
    monkeypatch.setattr(sys, "executable", str(folder / "bin" / "python"))
    monkeypatch.setattr(install_command, "_own_requirement", lambda: "mla-tui")
    monkeypatch.setenv("PATH", str(folder / "bin"))
    return folder


def commands() -> list[str]:
    return [install_extra("torchao"), install_package("ninja"), install_torch("cu128")]


def test_pip_is_that_of_this_python(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = f"{prefix}/bin/python"
    rest = ["'mla-tui[torchao]'", "ninja", WHEELS]
    monkeypatch.setattr(PathFinder, "find_spec", lambda name: object())
    assert commands() == [f"{python} -m pip install {words}" for words in rest]
    monkeypatch.setattr(PathFinder, "find_spec", lambda name: None)
    assert commands() == [f"uv pip install --python {python} {words}" for words in rest]
    pip = prefix / "bin" / "pip"
    pip.write_text("#!/bin/sh\n")
    pip.chmod(0o755)
    assert commands() == [f"pip install {words}" for words in rest]


def test_pipx_installs_into_its_environment(prefix: Path) -> None:
    (prefix / "pipx_metadata.json").write_text("{}")
    assert commands() == [
        "pipx runpip mla-tui install 'mla-tui[torchao]'",
        "pipx inject mla-tui ninja",
        f"pipx runpip mla-tui install {WHEELS}",
    ]


def test_uv_is_told_again_what_was_installed_before(prefix: Path) -> None:
    receipt = prefix / "uv-receipt.toml"
    receipt.write_text(
        '[tool]\nrequirements = [{ name = "mla-tui", extras = ["gguf"], directory = "/home/u/mla-tui" },'
        ' { name = "pyarrow", specifier = ">=20" }]\n'
    )
    assert commands() == [
        "uv tool install --with pyarrow 'mla-tui[gguf,torchao]'",
        "uv tool install --with pyarrow --with ninja 'mla-tui[gguf]'",
        "uv tool install --torch-backend cu128 --reinstall-package torch --with pyarrow 'mla-tui[gguf]'",
    ]
    for damaged in ("", "tool = 1", "[tool]\nrequirements = [{ name = 3 }]", "\0"):
        receipt.write_text(damaged)
        assert commands()[:2] == ["uv tool install 'mla-tui[torchao]'", "uv tool install --with ninja mla-tui"]


def test_a_clone_that_is_not_installed_is_named_by_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """No index is asked for a package of that name."""
    monkeypatch.setattr(install_command, "NAME", "no-such-package-of-ours")
    monkeypatch.setattr(install_command, "_own_requirement", install_command._own_requirement.__wrapped__)
    assert install_extra("gguf").endswith(f"{Path(install_command.__file__).parents[1]}[gguf]'")


def test_what_compiles_can_be_imported_after_a_command_was_named() -> None:
    """setuptools, which DeepSpeed and torch's compiler import, sees every search for pip."""
    script = "from profiles.install_command import install_package; install_package('x'); import setuptools"
    env = {"PATH": "", "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True)
    assert done.stderr == ""
