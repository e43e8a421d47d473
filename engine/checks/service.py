"""A systemd user unit that, at boot, resumes the runs which the boot cut off."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from engine.checks.systemd import NAME, lingers, unit_path
from engine.host.programs import COMMAND_LINE
from profiles.errors import UserError

BY_HAND = "after a reboot resume by hand: mla-tui resume --cut-off"
PATIENCE = 30.0  # seconds for systemd to answer
# What decides where state, hooks and caches lie and which programs, libraries and cards a run finds: at boot there is
# no shell that could set them.
KEPT = (
    *("MLA_TUI_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "PATH", "PYTHONPATH", "LD_LIBRARY_PATH"),
    *("CUDA_HOME", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "OMP_NUM_THREADS", "TORCHINDUCTOR_CACHE_DIR"),
)


def unit_text() -> str:
    """The unit, for this Python and this environment (systemd.service(5))."""
    command = " ".join(
        _quoted(word.replace("$", "$$")) for word in (sys.executable, "-P", "-m", COMMAND_LINE, "resume", "--cut-off")
    )
    kept = "".join(f"Environment={_quoted(f'{name}={os.environ[name]}')}\n" for name in KEPT if os.environ.get(name))
    return f"""[Unit]
Description=mla-tui: resume the training runs that a reboot cut off
Documentation=man:systemd.service(5)

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={command}
# The runs it starts belong to it and outlive it; a run that the kernel ends for its memory must not end the others.
KillMode=process
OOMPolicy=continue
{kept}
[Install]
WantedBy=default.target
"""


def install() -> list[str]:
    """Write the unit and have it started at boot; what is left to do, a line each. Raises ``UserError``."""
    _ask_systemd("daemon-reload")  # it must answer before anything is written
    path = unit_path()
    before = path.read_text() if path.exists() else None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(unit_text())
    try:
        _ask_systemd("daemon-reload")
        _ask_systemd("enable", NAME)
    except UserError:
        if before is None:
            path.unlink()
        else:
            path.write_text(before)
        raise
    return [] if lingers() else ["so that it begins at boot and not at your first login, run: loginctl enable-linger"]


def remove() -> None:
    """Have it no longer started; runs go on. Raises ``UserError``."""
    path = unit_path()
    if not path.exists():
        raise UserError(f"service: {path} is not there; nothing to remove")
    trouble = None
    try:
        _ask_systemd("disable", NAME)
    except UserError as error:
        trouble = error
        (path.parent / "default.target.wants" / NAME).unlink(missing_ok=True)  # what disable would have done
    path.unlink()
    if trouble is None:
        _ask_systemd("daemon-reload")


def _ask_systemd(*words: str) -> None:
    """``systemctl --user …``. Raises ``UserError`` where there is no systemd, or where it refuses."""
    try:
        done = subprocess.run(
            ["systemctl", "--user", *words], capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError:
        raise UserError(f"service: there is no systemd on this machine; {BY_HAND}") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"service: systemctl --user {words[0]} did not answer within {PATIENCE:g} s") from None
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"code {done.returncode}"
        raise UserError(f"service: systemctl --user {' '.join(words)}: {said}; {BY_HAND}")


def _quoted(word: str) -> str:
    """One word of a unit file: % would be replaced, a space would part it, and no line may end within it."""
    plain = word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("%", "%%")
    return plain if re.fullmatch(r"[\w./:=@%$+,-]+", plain) else f'"{plain}"'
