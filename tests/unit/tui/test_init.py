"""``mla-tui init`` writes a profile for the machine that can be launched, and asks or says why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.memory import hardware as hardware_module
from engine.memory.forecast import forecast
from engine.memory.hardware import Hardware
from engine.memory.search import combinations as module
from profiles.registry import load
from tui.cli.main import main

GB = 1 << 30
CPU = Hardware("a cpu", "cpu", None, None, 16 * GB, 12 * GB)
CARD = Hardware("NVIDIA GeForce RTX 5080", "cuda", 16 * GB, 15 * GB, 24 * GB, 19 * GB)
MAC = Hardware("Apple Silicon", "mlx", 48 * GB, 44 * GB, 48 * GB, 44 * GB)


@pytest.fixture(autouse=True)
def profiles_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("MLA_TUI_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(module, "find_spec", lambda name: object())
    return tmp_path / "mla-tui" / "profiles"


def on(machine: Hardware, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware_module, "detect_hardware", lambda cards=1: machine)


@pytest.mark.parametrize(("machine", "base"), [(CPU, "cpu_demo"), (CARD, "pretrain_5080"), (MAC, "mac_m4_pro")])
def test_the_profile_is_written_with_comments_and_fits(
    machine: Hardware,
    base: str,
    profiles_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    on(machine, monkeypatch)
    assert main(["init", "--yes"]) == 0
    out = capsys.readouterr().out.partition("written: ")[0]
    assert machine.name in out and f'extends = "{base}"' in out
    text = (profiles_folder / "here.toml").read_text()
    assert text.startswith("# For ") and text in out
    assert max(map(len, out.splitlines())) < 80
    spec = load("here")
    assert forecast(spec, machine).fits(machine) and spec.batch.sequences == load(base).batch.sequences
    assert main(["init", "--yes"]) == 1
    assert "exists; choose another --name, or replace it with --force" in capsys.readouterr().err
    assert main(["init", "--yes", "--force"]) == 0


def test_what_cannot_be_done_is_one_line(
    profiles_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*words: str) -> str:
        assert main(["init", *words]) in (1, 2)
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and "Traceback" not in err
        return err

    on(CPU, monkeypatch)
    assert "mla-tui init --yes" in refused()  # no terminal to ask on
    assert "is a built-in profile" in refused("--yes", "--name", "cpu_demo")
    assert "without slashes" in refused("--yes", "--name", "a/b")
    profiles_folder.parent.mkdir(parents=True)
    profiles_folder.write_text("")  # a file where the folder should be
    assert "make it writable, or set XDG_CONFIG_HOME" in refused("--yes")
    profiles_folder.unlink()
    on(Hardware("a cpu", "cpu", None, None, GB, GB // 8), monkeypatch)
    assert "no profile fits into 0.1 GiB of free RAM; free some" in refused("--yes")
