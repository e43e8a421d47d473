"""Checks that a run that continues still has the data it has read so far."""

from __future__ import annotations

from pathlib import Path

from data.fingerprint import Fingerprint, differences
from data.splits import check_data, fingerprint_of, open_splits
from engine.checkpoints.resume_source import checkpoint_data
from engine.events.commands import CommandReader
from engine.events.phases import THE_DATA_HAS_CHANGED
from engine.events.requests import ResumeRequest
from engine.events.run_dir import RunDir
from engine.host.files import read_json, write_json
from engine.train.backends.ranks import Ranks
from profiles.errors import NeedsAttentionError, UserError
from profiles.spec import RunSpec


def check_data_of_run(run: RunDir, now: Fingerprint, resume: Path | None) -> Fingerprint | None:
    """Return the data that the checkpoint ``resume`` was trained on, if ``run`` goes on with other data.

    Raises ``NeedsAttentionError`` unless an earlier attempt has read this data, or the user has accepted the change.
    """
    saved = checkpoint_data(resume) if resume else None
    last = run.current_state().data  # what the attempt before this one has read
    since_saved = differences(saved, now) if saved else ""
    since_last = "" if last in (None, now.digest) else _differences_from_record(run, last, now)
    # An attempt that went on with other data may have ended before its first checkpoint.
    changed = since_last if last else since_saved
    if changed and (since_saved or not saved) and not _accepted(run, first=last is None):
        raise NeedsAttentionError(f"{THE_DATA_HAS_CHANGED}: {changed}")
    write_json(run.data_path(now.digest), now.to_dict())
    return saved if since_saved else None


def check_data_is_there(spec: RunSpec) -> None:
    """Raise ``NeedsAttentionError`` where a run that has read its data before cannot open it any more."""
    try:
        check_data(spec)
    except UserError as error:
        raise NeedsAttentionError(str(error)) from None


def check_same_on_all_ranks(now: Fingerprint, ranks: Ranks) -> None:
    """Raise ``UserError`` where the data of another host differs: its ranks would train on other sequences."""
    first = ranks.run_on_rank_zero(lambda: now.digest)
    if others := ranks.sum_over_ranks(first != now.digest):
        raise UserError(
            f"data.root: {others:g} of {ranks.size} ranks have other shards or another eot_id than rank 0;"
            " copy them again"
        )


def recorded_data(run: RunDir, digest: str) -> Fingerprint | None:
    """Return the data that ``run`` recorded under ``digest``; None where that record is lost."""
    content = read_json(run.data_path(digest)) if digest.isalnum() else {}
    return Fingerprint.from_dict(content, str(run.data_path(digest))) if content else None


def changed_since(run: RunDir, spec: RunSpec) -> str:
    """Return how the data of ``spec`` differs from what ``run`` has read; "" where it does not, or is not known."""
    try:
        recorded = recorded_data(run, run.current_state().data or "")
        return differences(recorded, fingerprint_of(spec, open_splits(spec))) if recorded else ""
    except UserError:
        return ""


def _differences_from_record(run: RunDir, digest: str, now: Fingerprint) -> str:
    before = recorded_data(run, digest)
    return differences(before, now) if before else "its shards are not those that the run has read so far"


def _accepted(run: RunDir, first: bool) -> bool:
    """Whether the user said to go on: when launching the run, or in a ``resume`` that no trainer has acknowledged."""
    if first and run.launch().data_changed:
        return True
    pending = CommandReader(run.commands_path, run.log_path).poll()
    return any(command.request == ResumeRequest(data_changed=True) for command in pending)
