"""Describes a run by its summary: its phase, its outcome, why it was cut off."""

from __future__ import annotations

from collections.abc import Sequence

from engine.events.phases import CUT_OFF, is_active
from engine.events.run_dir import is_on_other_host
from engine.events.status import Summary
from profiles.printable import one_line
from tui.text import format as fmt

STALLED = "stalled"
LONGEST = 8000  # characters; a reason may quote a command and what it printed


def describe_cut_off(summaries: Sequence[Summary]) -> str:
    """Return which runs were cut off, and why; empty if none was."""
    cut = [summary for summary in summaries if summary.phase == CUT_OFF]
    if not cut:
        return ""
    reasons = {summary.reason for summary in cut}
    why = f": {reasons.pop()}" if len(reasons) == 1 else ""
    name = cut[0].name or cut[0].id
    return one_line(f"{name} was cut off{why}" if len(cut) == 1 else f"{len(cut)} runs were cut off{why}")


def is_working(summary: Summary) -> bool:
    """Return whether a process on this host works on the run: only then its speed is one of now."""
    return is_active(summary.phase) and not is_on_other_host(summary)


def phase_name(summary: Summary) -> str:
    """Return the phase of a run in few cells: ``stalled`` while no step ends, ``seen 17:02`` for an active run on
    another host, which may have died.
    """
    if is_on_other_host(summary) and is_active(summary.phase):
        return f"seen {fmt.timestamp(summary.seen)}"
    return STALLED if is_stalled(summary) else summary.phase


def is_stalled(summary: Summary) -> bool:
    """Return whether a run of this host has trained no step for a long while, and may never."""
    return summary.stalled is not None and is_working(summary)


def bits_per_byte(value: float | None) -> str:
    """Return what is said of it after a validation loss; empty where it is not known."""
    return "" if value is None else f", {fmt.loss(value)} bits per byte"


def describe_labels(summary: Summary) -> str:
    """Return the tags and the note of a run: ``#moe #lr · a note``."""
    tags = " ".join(f"#{tag}" for tag in summary.tags)
    return one_line(" · ".join(filter(None, [tags, summary.note])))


def describe_outcome(summary: Summary) -> str:
    """Return the phase, step, losses and reason of a run, for example when it ended."""
    text = f"{summary.phase} at step {summary.step or 0}"
    if summary.loss is not None:
        text += f", loss {fmt.fixed(summary.loss, 4)}"
    if summary.val_loss is not None:
        text += f", validation loss {fmt.fixed(summary.val_loss, 4)}{bits_per_byte(summary.bits_per_byte)}"
    if summary.reason:
        text += f": {summary.reason}"
    if (step := resumes_at(summary)) is not None:
        text += f"; resumes at step {step}"
    return one_line(text, LONGEST)


def resumes_at(summary: Summary) -> int | None:
    """Return the step of the checkpoint at which a run that was cut off resumes, where steps behind it are lost."""
    step = summary.restarts_at or 0
    return step if summary.phase == CUT_OFF and step < (summary.step or 0) else None
