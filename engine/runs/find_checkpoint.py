"""Finds the checkpoint that a user names by its path, by its run, or as the latest."""

from __future__ import annotations

from pathlib import Path

from engine.checkpoints import checkpoint
from engine.checkpoints.ownership import checkpoint_dir, checkpoints_of
from engine.checkpoints.resume_source import missing_source
from engine.events.run_dir import RunDir
from engine.runs.store import RunStore
from profiles.errors import UserError
from profiles.paths import expand

_NAMED = 3  # other runs that a message names


def find_checkpoint(text: str, store: RunStore, out: Path, name: str | None = None) -> Path:
    """Return the checkpoint that ``text`` means: a path, a run (its newest checkpoint), or ``latest``.

    ``latest`` is the newest checkpoint of the run ``name`` or, without a name, of the current run: the one that began
    last, in the background or in the foreground with ``out`` as its folder. It is never that of an earlier run, which
    its user has to name. Raises ``UserError``.
    """
    if text == "latest":
        path = _newest_in(out / name) if name else _latest(store, out)
    elif "/" in text:
        return checkpoint.find(text)
    else:
        problem: UserError | None = None
        if expand(text, "checkpoint").exists() or checkpoint.NAME.fullmatch(text):
            try:
                return checkpoint.find(text)
            except UserError as error:  # a folder of that name, such as an export of the run, hides no run
                problem = error
        try:
            run = store.find(text)
        except UserError as error:
            raise problem or UserError(f"{text!r}: is neither a checkpoint nor a run: {error}") from None
        path = _newest_of(run)
    checkpoint.metadata(path)
    return path


def _latest(store: RunStore, out: Path) -> Path:
    foreground = checkpoint.latest(out)
    ids = store.ids()
    if not ids:
        return _newest_in(out)
    current = RunDir(store.runs / ids[0])
    if foreground and foreground.stat().st_mtime > (current.state().started or 0):
        newest = checkpoints_of(current).newest
        if newest is None or foreground.stat().st_mtime > newest.stat().st_mtime:
            return foreground
    try:
        return _newest_of(current)
    except UserError as error:
        others = [run.name for run in (RunDir(store.runs / id) for id in ids[1:]) if _has_checkpoint(run)][:_NAMED]
        named = f"; name another one to continue it: {', '.join(others)}" if others else ""
        raise UserError(f"latest: {error}{named}") from None


def _newest_of(run: RunDir) -> Path:
    path = checkpoints_of(run).newest
    if path is None:
        raise UserError(no_checkpoint(run))
    return path


def no_checkpoint(run: RunDir) -> str:
    """Return why no checkpoint of ``run`` is found: it has saved none, or they are gone."""
    missing = missing_source(run, saved) if (saved := run.current_state().checkpoint) else None
    if missing:
        or_remove = f"; if they were deleted, remove the run too: mla-tui rm {run.id}" if run.ended() else ""
        return f"run {run.name}: {missing}; mount its disk, or put the folder back{or_remove}"
    return f"run {run.name}: has no checkpoint in {checkpoint_dir(run)}"


def _newest_in(folder: Path) -> Path:
    path = checkpoint.latest(folder)
    if path is None:
        raise UserError(f"latest: there is no checkpoint in {folder}; name a checkpoint or a run (mla-tui ls)")
    return path.absolute()


def _has_checkpoint(run: RunDir) -> bool:
    try:
        return bool(checkpoints_of(run).steps)
    except UserError:  # its spec is damaged
        return False
