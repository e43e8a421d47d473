"""The scripts that complete commands in a shell."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from engine.runs.store import RunStore
from tests.unit.tui.conftest import Make
from tui.cli.commands.completion import SHELLS
from tui.cli.main import COMMANDS, main


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_has_every_command_and_asks_for_runs(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(command in script for command in COMMANDS)
    assert "mla-tui completion runs" in script and "mla-tui completion settings" in script
    if program := shutil.which(shell):
        assert subprocess.run([program, "-n"], input=script, text=True, timeout=60).returncode == 0


def test_bash_completes_a_command_and_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    main(["completion", "bash"])
    script = capsys.readouterr().out
    for words, wanted in (("mla-tui expo", "export"), ("mla-tui export --fo", "--format")):
        asked = f"COMP_WORDS=({words}); COMP_CWORD={len(words.split()) - 1}; _shtab_mla_tui; echo ${{COMPREPLY[@]}}"
        done = subprocess.run(["bash"], input=f"{script}\n{asked}\n", capture_output=True, text=True, timeout=60)
        assert wanted in done.stdout.split(), done


def test_words_are_runs_settings_and_profiles(
    store: RunStore, make_run: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run("one", 1)
    make_run("one", 1)
    make_run("two", 1)
    for kind, wanted in (("runs", "two\none\nlatest"), ("settings", "batch.micro="), ("profiles", "pretrain_5080")):
        assert main(["completion", kind]) == 0
        assert wanted in capsys.readouterr().out


def test_a_shell_that_completes_executes_no_name(
    store: RunStore, make_run: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell expands the words that it completes. Of a run whose name is no plain word it gets the id."""
    names = ("$(touch pwned)", "`touch pwned`", "two words", "~", "*", "plain-1.0")
    ids = {name: make_run(name, 1)[0].id for name in names}
    main(["completion", "runs"])
    words = capsys.readouterr().out.splitlines()
    assert set(words) == {*(ids[name] for name in names[:-1]), "plain-1.0", "latest"}
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    profile = tmp_path / "mla-tui" / "profiles" / "$(touch pwned).toml"
    profile.parent.mkdir(parents=True)
    profile.write_text("")
    main(["completion", "profiles"])
    assert "pwned" not in capsys.readouterr().out
