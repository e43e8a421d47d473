"""Says how a run that an error has ended is continued."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

from engine.checkpoints import checkpoint


def continue_command(out: Path) -> str:
    """Return the command that continues from the newest checkpoint in ``out``; that the run starts again without one.

    The checkpoint is named, because ``latest`` might be another run's.
    """
    saved = checkpoint.latest(out)
    return f"continue with: mla-tui launch --resume {quote(str(saved))}" if saved else "start the run again"
