"""Lists the phases of a run, and says of each whether the run is active, has ended, or needs attention.

The phase is that of the newest ``state`` record. ``cut-off`` and ``damaged`` are in no record: they say of a run whose
record says that it is active that no process works on it.
"""

from __future__ import annotations

from typing import NamedTuple


class Phase(NamedTuple):
    """``active``: a process works on the run. ``ended``: it is over; only a resume as another run goes on with it.

    ``needs_attention``: a user has to act, or at least to look.
    """

    name: str
    meaning: str
    active: bool = True
    ended: bool = False
    needs_attention: bool = False
    trains: bool = False  # its trainer works


STARTING, COMPILING, RUNNING, SAVING = "starting", "compiling", "running", "saving"
PAUSED, STOPPING, RECOVERING, NEEDS_ATTENTION = "paused", "stopping", "recovering", "needs-attention"
FINISHED, FAILED, STOPPED, CUT_OFF, DAMAGED = "finished", "failed", "stopped", "cut-off", "damaged"
DATA_CHANGED = "--data-changed"  # of resume; in the reason of a run that needs attention because its data has changed
THE_DATA_HAS_CHANGED = "the data has changed"  # so begins what such a trainer says
NOT_ON_ALL_RANKS = "not every rank has what the run goes on from"  # begins such a reason of a run that needs attention

PHASES = {
    phase.name: phase
    for phase in (
        Phase(STARTING, "the trainer starts, or waits for a device or for ranks"),
        Phase(COMPILING, "the first step is compiled", trains=True),
        Phase(RUNNING, "it trains", trains=True),
        Phase(SAVING, "training waits until a checkpoint is written", trains=True),
        Phase(PAUSED, "a user, or an error that a user should answer, has paused it", trains=True),
        Phase(STOPPING, "a stop was requested; it saves a checkpoint first", trains=True),
        Phase(RECOVERING, "its trainer has exited and is restarted", needs_attention=True),
        Phase(NEEDS_ATTENTION, "its data or checkpoints are not as they should be", needs_attention=True),
        Phase(FINISHED, "all steps are done", active=False, ended=True),
        Phase(STOPPED, "it was stopped on request", active=False, ended=True),
        Phase(FAILED, "an error has ended it", active=False, ended=True, needs_attention=True),
        Phase(CUT_OFF, "it has not ended, but its processes are gone", active=False, needs_attention=True),
        Phase(DAMAGED, "it has not ended and has no spec: remove it", active=False, needs_attention=True),
    )
}
_OF_NEWER_VERSION = Phase("", "written by a newer version")


def phase_of(name: str | None) -> Phase:
    """Return what a phase means. One of a newer version is active, as all but the last ones of a run are."""
    return PHASES.get(name or "", _OF_NEWER_VERSION)


def is_active(name: str | None) -> bool:
    return phase_of(name).active


def makes_steps(name: str | None) -> bool:
    """Return whether steps go on by themselves, so that a run has a speed and an end that can be predicted."""
    return name in (COMPILING, RUNNING, SAVING)


def has_ended(name: str | None) -> bool:
    return phase_of(name).ended
