"""Defines what is known of a run besides its log: how it was launched, its state, and the summary that users see."""

from typing import Any

from msgspec import Struct

from engine.events.numbers import Count, ExitCode, Number
from engine.events.planned import Planned
from engine.host.process import ProcessIdentity


class Launch(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a run was launched: ``start`` in its ``spec.json``."""

    name: str | None = None  # given by the user
    resume: str | None = None  # path of the checkpoint it resumes from
    init_from: str | None = None  # path of what its weights are from
    share_device: bool = False  # it does not wait until its device is free
    data_changed: bool = False  # the data may be other than that of the checkpoint
    host: str | None = None  # of the launch, as in the state, which may be damaged
    boot: str | None = None


class LastExit(Struct, frozen=True):
    """Why the trainer of an attempt exited, as its ``exit`` record says."""

    code: ExitCode | None = None
    signal: str | None = None
    why: str = ""
    attempt: Count = 0


class Facts(Struct, kw_only=True):
    """What state and summary have in common."""

    id: str = ""
    name: str | None = None
    phase: str
    reason: str | None = None
    step: Count | None = None
    steps: Count | None = None
    loss: Number | None = None
    val_loss: Number | None = None
    bits_per_byte: Number | None = None
    tok_s: Number | None = None
    micro: Count | None = None
    accum: Count | None = None
    context: Count | None = None
    backend: str | None = None
    profile: str | None = None
    checkpoint: str | None = None  # path of the newest
    restarts_at: Count | None = None  # the step from which a restart goes on
    attempt: Count = 0  # 1, and one more with every restart; 0 before the first
    started: Number | None = None  # unix seconds
    ended: Number | None = None
    version: str | None = None  # of mla-tui, that supervises it
    host: str | None = None
    seen: Number | None = None  # time of the last record, where the log was read
    damage: str | None = None  # what is wrong with its files
    stalled: str | None = None  # what its supervisor says while no step ends


class RunStatus(Facts, kw_only=True, omit_defaults=True):
    """The state of a run, which each record of the log updates (``summary.py``); ``state.json`` holds it."""

    boot: str | None = None  # on which its processes were started
    supervisor: ProcessIdentity | None = None
    trainer: ProcessIdentity | None = None
    exit: LastExit | None = None  # of the newest attempt that has exited
    val_step: Count | None = None  # of val_loss
    start_attempt: Count | None = None  # the newest attempt that has begun to train
    data: str | None = None  # fingerprint of the shards it reads
    live: dict[str, Any] | None = None  # values that edits can change, as they are now
    later: list[Planned] | None = None  # edits of earlier attempts that this one makes again
    checkpoint_bytes: Count | None = None  # size of the newest checkpoint
    at: Count = 0  # how far the log was read
    hooks_at: Count | None = None  # the log offset up to which hooks have run
    launched: Number | None = None  # monotonic seconds
    format: Count | None = None  # of the run's directory


class ProcessStatus(Struct, frozen=True):
    """Whether a process of a run is alive."""

    pid: int | None = None
    alive: bool | None = False  # null: on another host, which cannot be checked
    visible: bool = True  # whether the pid means that process here, and not in another container


class Summary(Facts, kw_only=True):
    """What ``status`` and ``ls`` show of a run; with ``--json`` as it is. ``tok_s``: None while it makes no steps."""

    supervisor: ProcessStatus = ProcessStatus()
    trainer: ProcessStatus = ProcessStatus()
    lr: Number | None = None  # the largest of its schedule, as launched
    tags: tuple[str, ...] = ()
    note: str | None = None

    @classmethod
    def of(cls, state: RunStatus, supervisor: ProcessStatus, trainer: ProcessStatus) -> "Summary":
        facts = {name: getattr(state, name) for name in Facts.__struct_fields__}
        return cls(**facts, supervisor=supervisor, trainer=trainer)
