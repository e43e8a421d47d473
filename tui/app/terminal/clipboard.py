"""Copies text to the clipboard from inside tmux.

With its default (``set-clipboard external``) tmux ignores the escape sequence by which a program sets the clipboard.
"""

from __future__ import annotations

import contextlib
import os
import subprocess

_TIMEOUT = 5.0  # seconds


def inside_tmux() -> bool:
    return bool(os.environ.get("TMUX"))


def copy_to_tmux(text: str) -> None:
    """Make ``text`` tmux's newest buffer; tmux 3.2 and later also passes it to its own terminal's clipboard."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(["tmux", "load-buffer", "-w", "-"], input=text.encode(), capture_output=True, timeout=_TIMEOUT)
