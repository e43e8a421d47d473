"""Installs a systemd user unit that resumes, at boot, the runs that the reboot cut off."""

from __future__ import annotations

import os
import re
import subprocess

from engine.checks.systemd import NAME, lingers, unit_path
from engine.host.files import write_atomic
from engine.host.programs import COMMAND_LINE, python_module
from profiles.errors import UserError
from profiles.reader import read_text

MANUALLY = "after a reboot resume runs with: mla-tui resume --cut-off"
TIMEOUT = 30.0  # seconds
# Variables that decide where state, hooks and caches are and which programs, libraries and GPUs a run finds. At boot no
# shell sets them, so the unit keeps their present values.
KEPT_VARIABLES = (
    *("MLA_TUI_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "PATH", "PYTHONPATH", "LD_LIBRARY_PATH"),
    *("CUDA_HOME", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "OMP_NUM_THREADS", "TORCHINDUCTOR_CACHE_DIR"),
)


def unit_text() -> str:
    """Return the unit file for this Python and this environment (systemd.service(5))."""
    command = " ".join(_quoted(word.replace("$", "$$")) for word in python_module(COMMAND_LINE, "resume", "--cut-off"))
    kept = "".join(
        f"Environment={_quoted(f'{name}={os.environ[name]}')}\n" for name in KEPT_VARIABLES if os.environ.get(name)
    )
    return f"""[Unit]
Description=mla-tui: resume the training runs that a reboot cut off
Documentation=man:systemd.service(5)

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={command}
# The runs it starts belong to it and outlive it; a run killed for lack of memory must not end the others.
KillMode=process
OOMPolicy=continue
{kept}
[Install]
WantedBy=default.target
"""


def install() -> list[str]:
    """Write and enable the unit; return what is left to do, a line each. Raises ``UserError``."""
    _systemctl("daemon-reload")  # systemd must answer before anything is written
    path = unit_path()
    before = read_text(path) if path.exists() else None
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, unit_text().encode())  # a full disk leaves the unit that is there
    try:
        _systemctl("daemon-reload")
        _systemctl("enable", NAME)
    except UserError:
        if before is None:
            path.unlink()
        else:
            write_atomic(path, before.encode())
        raise
    return [] if lingers() else ["to start it at boot and not at your first login, run: loginctl enable-linger"]


def remove() -> None:
    """Disable and remove the unit; active runs continue. Raises ``UserError``."""
    path = unit_path()
    if not path.exists():
        raise UserError(f"service: {path} does not exist; nothing to remove")
    failure = None
    try:
        _systemctl("disable", NAME)
    except UserError as error:
        failure = error
        (path.parent / "default.target.wants" / NAME).unlink(missing_ok=True)  # what disable would have removed
    path.unlink()
    if failure is None:
        _systemctl("daemon-reload")


def _systemctl(*words: str) -> None:
    """Run ``systemctl --user …``. Raises ``UserError`` where there is no systemd or it fails."""
    try:
        done = subprocess.run(
            ["systemctl", "--user", *words], capture_output=True, text=True, timeout=TIMEOUT, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError:
        raise UserError(f"service: there is no systemd on this machine; {MANUALLY}") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"service: systemctl --user {words[0]} did not answer within {TIMEOUT:g} s") from None
    if done.returncode:
        message = " ".join(done.stderr.split()) or f"code {done.returncode}"
        raise UserError(f"service: systemctl --user {' '.join(words)}: {message}; {MANUALLY}")


def _quoted(word: str) -> str:
    """Quote one word of a unit file, where % is a specifier, a space separates and a newline ends the line."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("%", "%%")
    return escaped if re.fullmatch(r"[\w./:=@%$+,-]+", escaped) else f'"{escaped}"'
