"""Decides how an attempt ends whose loss or gradient norm is not finite, as ``train.on_nan`` says."""

from __future__ import annotations

from pathlib import Path

from engine.events.types import Alert, Rewind
from engine.train.continue_command import continue_command
from engine.train.edit_history import RestartRequested
from engine.train.reporter import Reporter
from engine.train.step_runner import NotFinite
from profiles.errors import UserError


def not_finite_error(
    result: NotFinite, step: int, newest: int | None, on_nan: str, supervised: bool, out: Path, reporter: Reporter
) -> RestartRequested | UserError:
    """Log that ``step`` was not finite, and return the error that ends this attempt.

    A rewind goes on behind the data of that step. ``newest`` is the step of the newest checkpoint, ``out`` the folder
    of the run's checkpoints, ``supervised`` whether something starts the trainer again.
    """
    text = f"step {step}: loss {result.loss:.6g}, gradient norm {result.grad_norm:.6g}; the step was not applied"
    reporter.record(Alert(what="nan", text=text))
    if on_nan == "rewind":
        if newest is not None and supervised:
            reporter.record(Rewind(step=newest, cursor=result.cursor.to_dict(), why=text))
            return RestartRequested(
                f"{text}; a restart goes back to step {newest} and skips the data up to step {step}"
            )
        why = "there is no checkpoint yet" if newest is None else "a run in the foreground is not restarted"
        text += f"; no rewind: {why}"
    return UserError(f"{text}; lower optim.lr and {continue_command(out)}")
