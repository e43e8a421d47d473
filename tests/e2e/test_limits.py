"""What a run costs beside its training, in figures that do not depend on the speed of the machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import Run, WaitFor, Workspace, output

SUPERVISOR_RSS = 45 << 20  # bytes
needs_proc = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads /proc, which is Linux's")


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@needs_proc
def test_the_supervisor_stays_small(workspace: Workspace, wait_for: WaitFor) -> None:
    run = workspace.launch("-s", "steps=1000000", "-s", "save_every=0", "-s", "val_every=0")
    run.wait_step(1)
    before = run.pid("supervisor"), open_files(run.pid("supervisor"))
    readers = [workspace.start("watch", run.id, "--json") for _ in range(3)]
    for reader in readers:
        for _ in range(300):
            assert output(reader).readline()
    supervisor = run.pid("supervisor")
    assert psutil.Process(supervisor).memory_info().rss <= SUPERVISOR_RSS
    maps = Path(f"/proc/{supervisor}/maps").read_text()
    assert "/torch/" not in maps
    assert "/numpy" not in maps
    assert psutil.Process(supervisor).terminal() is None
    for reader in readers:
        reader.kill()
        reader.communicate()
    # Every reader costs a connection and an open log; both are closed with it.
    assert before[0] == supervisor
    wait_for("the readers' files to be closed", lambda: open_files(supervisor) <= before[1] + 1)


@pytest.mark.parametrize("command", [("ls", "--json"), ("status", "latest"), ("launch", "--dry-run", "-p", "nano")])
def test_commands_that_only_read_import_no_torch(reference: Run, command: str) -> None:
    """Torch alone takes seconds to import; only training and sampling may import it."""
    program = (
        "import sys; from tui.cli.main import main; code = main(sys.argv[1:]);"
        "print(*[m for m in ('torch', 'textual', 'mlx', 'deepspeed') if m in sys.modules], file=sys.stderr);"
        "sys.exit(code)"
    )
    workspace = reference.workspace
    argv = [sys.executable, "-c", program, *command]
    done = subprocess.run(argv, env=workspace.env, cwd=workspace.root, capture_output=True, text=True, timeout=90)
    assert (done.returncode, done.stderr.strip()) == (0, "")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit the address space")
def test_too_little_address_space_for_numpy_is_one_line(reference: Run) -> None:
    """Its BLAS would end the process with a message of its own, at a size that grows with the cores."""
    workspace = reference.workspace

    def limited(mib: int, *command: str) -> subprocess.CompletedProcess[str]:
        argv = ["sh", "-c", f'ulimit -v {mib << 10}; exec "$@"', "sh", sys.executable, "-m", "tui.cli", *command]
        return subprocess.run(argv, env=workspace.env, cwd=workspace.root, capture_output=True, text=True, timeout=90)

    needs_data = ("launch", "--dry-run", "-p", "nano")
    refused = limited(100, *needs_data)
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (1, "", 1), refused.stderr
    assert refused.stderr.startswith("mla-tui: ulimit -v: 100 MiB of address space are too few")
    planned = limited(100, "plan", "-p", "nano")
    assert planned.stderr == refused.stderr and "tokens/s" in planned.stdout
    assert limited(100, "ls").returncode == 0
    assert limited(160, *needs_data).returncode == 0


def test_other_users_can_read_nothing_of_a_run(reference: Run) -> None:
    home = reference.workspace.home
    for folder in (home, home / "runs", reference.run_dir.path):
        assert folder.stat().st_mode & 0o077 == 0
    files = [path for path in reference.run_dir.path.rglob("*") if path.is_file()]
    assert len(files) >= 5
    assert [path.name for path in files if path.stat().st_mode & 0o077] == []
    assert not reference.run_dir.socket_path.exists()
