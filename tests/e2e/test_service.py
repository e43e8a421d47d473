"""The systemd unit that resumes runs after a reboot, without a systemd to boot.

systemd's own checker reads the unit where it is installed, the test runs its command, and a script stands for
systemctl.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Workspace


def unit(workspace: Workspace, **env: str) -> str:
    workspace.env |= env
    return workspace.run("service", "show").stdout


def unquoted(value: str) -> str:
    (word,) = shlex.split(value)
    return word.replace("%%", "%")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="reads the unit with systemd's own checker")
def test_systemd_accepts_the_unit(workspace: Workspace) -> None:
    odd = workspace.root / 'a "home" of 100% $HOME\\x'
    path = workspace.root / "mla-tui.service"
    path.write_text(unit(workspace, MLA_TUI_HOME=str(odd)))
    argv = ["systemd-analyze", "verify", "--user", "--man=no", str(path)]
    env = {**os.environ, "XDG_RUNTIME_DIR": str(workspace.root)}
    done = subprocess.run(argv, capture_output=True, text=True, env=env, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    # The checker does reject a mistake.
    path.write_text(path.read_text().replace("Type=oneshot", "Type=nonsense"))
    assert "nonsense" in subprocess.run(argv, capture_output=True, text=True, env=env, timeout=60).stderr


def test_the_units_command_resumes_the_runs_in_its_own_environment_alone(workspace: Workspace) -> None:
    text = unit(workspace)
    run = workspace.cut_off_run("run", boot="another")
    variables = dict(unquoted(line).split("=", 1) for line in re.findall(r"^Environment=(.*)$", text, re.MULTILINE))
    assert variables["MLA_TUI_HOME"] == str(workspace.home)
    (line,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    argv = shlex.split(line)
    done = subprocess.run(argv, env=variables, cwd="/", capture_output=True, text=True, timeout=90)
    assert (done.returncode, done.stdout) == (0, "")
    assert f"{run.id} was cut off" in done.stderr
    run.wait_step(3, attempt=2)


SYSTEMCTL = """#!/bin/sh
echo "$@" >> {log}
[ "$2" = {refuses} ] && { echo "Failed to $2 unit: it is not wanted" >&2; exit 1; }
exit 0
"""


def with_systemctl(workspace: Workspace, refuses: str = "nothing") -> Path:
    """Replace systemctl by a script that logs its arguments; return the log."""
    folder, log = workspace.root / "bin", workspace.root / "asked"
    folder.mkdir(exist_ok=True)
    program = folder / "systemctl"
    program.write_text(SYSTEMCTL.replace("{log}", str(log)).replace("{refuses}", refuses))
    program.chmod(0o755)
    workspace.env["PATH"] = f"{folder}:{os.environ['PATH']}"
    return log


def test_a_full_disk_leaves_the_unit_that_is_there(workspace: Workspace) -> None:
    """A limit on the size of a file stands in for a full disk."""
    with_systemctl(workspace)
    (workspace.root / "bin" / "systemctl").write_text("#!/bin/sh\nexit 0\n")
    path = workspace.root / "config" / "systemd" / "user" / "mla-tui.service"
    workspace.run("service", "install")
    before = path.read_text()
    command = ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh", sys.executable, "-m", "tui.cli", "service", "install"]
    done = subprocess.run(command, env=workspace.env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr.startswith("mla-tui: ") and "File too large" in done.stderr
    assert path.read_text() == before and [one.name for one in path.parent.iterdir()] == [path.name]


def test_install_writes_and_enables_the_unit_and_remove_deletes_it(workspace: Workspace) -> None:
    log = with_systemctl(workspace)
    path = workspace.root / "config" / "systemd" / "user" / "mla-tui.service"
    err = workspace.run("service", "install").stderr
    assert str(path) in err
    assert "loginctl enable-linger" in err
    assert path.read_text() == workspace.run("service", "show").stdout
    assert log.read_text().splitlines()[-1] == "--user enable mla-tui.service"
    workspace.run("service", "install")  # installing again is fine
    workspace.run("service", "remove")
    assert not path.exists()
    assert "--user disable mla-tui.service" in log.read_text()
    assert "nothing to remove" in workspace.run("service", "remove", code=1).stderr


def test_a_unit_that_systemd_refuses_is_deleted(workspace: Workspace) -> None:
    with_systemctl(workspace, refuses="enable")
    err = workspace.run("service", "install", code=1).stderr
    assert err == (
        "mla-tui: service: systemctl --user enable mla-tui.service: Failed to enable unit: it is not wanted;"
        " after a reboot resume runs with: mla-tui resume --cut-off\n"
    )
    assert not (workspace.root / "config" / "systemd" / "user" / "mla-tui.service").exists()


def test_without_systemd_one_line_says_what_to_do(workspace: Workspace) -> None:
    workspace.env["PATH"] = str(workspace.root)
    workspace.assert_refused(
        "service", "install", code=1, message="there is no systemd on this machine; after a reboot resume runs with"
    )
