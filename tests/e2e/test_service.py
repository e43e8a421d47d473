"""The unit that resumes runs after a reboot. There is no systemd to boot here: what it would read is read by its own
checker where that is there, what it would start is started by hand, and a program of the tests stands for systemctl."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from engine.host.files import write_json
from tests.e2e.conftest import Workspace


def unit(workspace: Workspace, **env: str) -> str:
    workspace.env |= env
    return workspace.run("service", "show").stdout


def unquoted(value: str) -> str:
    (word,) = shlex.split(value)
    return word.replace("%%", "%")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="reads the unit with systemd's own checker")
def test_systemd_reads_the_unit_without_a_complaint(workspace: Workspace) -> None:
    odd = workspace.root / 'a "home" of 100% $HOME\\x'
    path = workspace.root / "mla-tui.service"
    path.write_text(unit(workspace, MLA_TUI_HOME=str(odd)))
    argv = ["systemd-analyze", "verify", "--user", "--man=no", str(path)]
    env = {**os.environ, "XDG_RUNTIME_DIR": str(workspace.root)}
    done = subprocess.run(argv, capture_output=True, text=True, env=env, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    # The checker does complain of what is wrong.
    path.write_text(path.read_text().replace("Type=oneshot", "Type=nonsense"))
    assert "nonsense" in subprocess.run(argv, capture_output=True, text=True, env=env, timeout=60).stderr


def test_what_the_unit_starts_resumes_the_runs_with_nothing_but_its_own_environment(workspace: Workspace) -> None:
    text = unit(workspace)
    run = workspace.launch("-s", "steps=100000", "-s", "save_every=0")
    run.wait_step(5)
    run.kill_both()
    write_json(run.run_dir.state_path, {**run.run_dir.state(), "boot": "another"})
    kept = dict(unquoted(line).split("=", 1) for line in re.findall(r"^Environment=(.*)$", text, re.MULTILINE))
    assert kept["MLA_TUI_HOME"] == str(workspace.home)
    (line,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    argv = shlex.split(line)
    done = subprocess.run(argv, env=kept, cwd="/", capture_output=True, text=True, timeout=90)
    assert (done.returncode, done.stdout) == (0, "")
    assert f"{run.id} was cut off" in done.stderr
    run.wait_step(3, attempt=2)


SYSTEMCTL = """#!/bin/sh
echo "$@" >> {log}
[ "$2" = {refuses} ] && { echo "Failed to $2 unit: it is not wanted" >&2; exit 1; }
exit 0
"""


def with_systemctl(workspace: Workspace, refuses: str = "nothing") -> Path:
    """A machine whose systemctl writes down what it was asked."""
    folder, log = workspace.root / "bin", workspace.root / "asked"
    folder.mkdir(exist_ok=True)
    program = folder / "systemctl"
    program.write_text(SYSTEMCTL.replace("{log}", str(log)).replace("{refuses}", refuses))
    program.chmod(0o755)
    workspace.env["PATH"] = f"{folder}:{os.environ['PATH']}"
    return log


def test_install_writes_and_enables_the_unit_and_remove_takes_it_away(workspace: Workspace) -> None:
    log = with_systemctl(workspace)
    path = workspace.root / "config" / "systemd" / "user" / "mla-tui.service"
    told = workspace.run("service", "install").stderr
    assert str(path) in told
    assert "loginctl enable-linger" in told
    assert path.read_text() == workspace.run("service", "show").stdout
    assert log.read_text().splitlines()[-1] == "--user enable mla-tui.service"
    workspace.run("service", "install")  # again is no mistake
    workspace.run("service", "remove")
    assert not path.exists()
    assert "--user disable mla-tui.service" in log.read_text()
    assert "nothing to remove" in workspace.run("service", "remove", code=1).stderr


def test_a_unit_that_systemd_refuses_does_not_stay(workspace: Workspace) -> None:
    with_systemctl(workspace, refuses="enable")
    told = workspace.run("service", "install", code=1).stderr
    assert told == (
        "mla-tui: service: systemctl --user enable mla-tui.service: Failed to enable unit: it is not wanted;"
        " after a reboot resume by hand: mla-tui resume --cut-off\n"
    )
    assert not (workspace.root / "config" / "systemd" / "user" / "mla-tui.service").exists()


def test_without_systemd_one_line_says_the_way(workspace: Workspace) -> None:
    workspace.env["PATH"] = str(workspace.root)
    workspace.assert_refused(
        "service", "install", code=1, message="there is no systemd on this machine; after a reboot resume by hand"
    )
