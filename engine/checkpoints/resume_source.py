"""Checks that what a run resumes from is still there, and its data with it, and holds it until the run has saved."""

from __future__ import annotations

import shlex
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from engine.checkpoints import checkpoint
from engine.checkpoints.hold import held
from engine.checkpoints.ownership import checkpoints_of, saved_by
from engine.events.run_dir import RunDir
from profiles.errors import UserError

if TYPE_CHECKING:
    from data.fingerprint import Fingerprint


def missing_source(run: RunDir, saved: str | None) -> str | None:
    """Return a line that names what ``run`` has to resume from and that is not there, or None.

    ``saved``: the newest checkpoint that the run has written, as its log says. If there is one, an empty folder means
    that a disk is not mounted or the folder was removed: a start at step 0 would write a second history.
    """
    if saved:
        folder, others = Path(saved).parent, _only_of_others(run)
        if checkpoint.steps(folder) and not others:
            return None
        why = checkpoint.unreadable(folder)
        what = f"cannot be read ({why})" if why else f"are missing{others}"
        return f"{folder}: the checkpoints of this run {what}"
    launch = run.launch()
    for source in (launch.resume, launch.init_from):
        if source and not Path(source).exists():
            return f"{source}: is missing, and this run starts from it"
    return None


def _only_of_others(run: RunDir) -> str:
    """Return what the folder of ``run`` holds where none of it is of the run, as after a mix-up; else nothing."""
    try:
        has = checkpoints_of(run)
    except UserError:  # its damaged spec does not name the folder
        return ""
    return f"; it holds {has.rest()}" if has.others and not has.steps else ""


def check_not_continued(run: RunDir) -> None:
    """Raise ``UserError`` where another run has gone on from the checkpoints of ``run``, in the same folder.

    A restart would take the newest there, which is of that run, and write its own over the following ones.
    """
    has = checkpoints_of(run)
    if has.steps and has.others and (last := max(has.others)) > has.steps[-1]:
        raise UserError(
            f"run {run.id}: {saved_by(has.others[last])} has gone on from its checkpoints, up to step {last}; go on"
            f" from the last one with: mla-tui launch --resume {shlex.quote(str(has.out))}, or from the last one of"
            f" this run with: mla-tui launch --resume {shlex.quote(str(has.newest))} --name NAME"
        )


def hold_source(run: RunDir, saved: str | None) -> ExitStack:
    """Hold what ``run`` starts from until the stack is closed, unless it has ``saved`` a checkpoint of its own.

    Until then a restart begins there again.
    """
    stack, launch = ExitStack(), run.launch()
    if not saved and (source := launch.resume or launch.init_from):
        stack.enter_context(held(Path(source)))
    return stack


def checkpoint_data(path: Path) -> Fingerprint | None:
    """Return the fingerprint of the data that the checkpoint ``path`` was trained on. Raises ``UserError``."""
    from data.fingerprint import Fingerprint  # imports numpy, which a supervisor does not need

    content = checkpoint.metadata(path).get("data")
    return None if content is None else Fingerprint.from_dict(content, f"{path}/trainer.json")


def check_same_data(now: Fingerprint, resume: Path, accepted: bool) -> Fingerprint | None:
    """Return the data of the checkpoint if ``now`` differs from it. Raises ``UserError`` unless that is accepted."""
    from data.fingerprint import differences

    before = checkpoint_data(resume)
    found = differences(before, now) if before else ""
    if found and not accepted:
        raise UserError(f"--resume {resume}: the data has changed: {found}; restore the data, or add --data-changed")
    return before if found else None
