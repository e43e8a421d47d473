"""Defines the records of a run's log, one class per kind: what is written, read, sent over the socket and shown.

A record is one line of JSON: the kind, the fields below, in the units named there. ``docs/protocol.md`` is generated
from these classes and the comments beside their fields. ``decode.py`` reads a record, ``log.py`` writes one.

A reader skips kinds and fields that it does not know, because a newer version may have written them. A field may be
missing if it has a default.
"""

from typing import Annotated, Any

from msgspec import Meta, Struct

from engine.events.metric import Metric
from engine.events.numbers import Count, ExitCode, Number, Time
from engine.events.planned import Planned
from engine.events.requests import TrainerRequest

UNTIMED = -1.0

# A sample, or the lowest and highest sample of a minute. Not a tuple: beside a number with limits, msgspec 0.22 reads
# the size of a tuple from the wrong place in memory.
Range = Number | Annotated[list[Number], Meta(min_length=2, max_length=2)]


class Event(Struct, frozen=True, omit_defaults=True, tag_field="kind"):
    """The fields of every record."""

    t: Time = UNTIMED  # unix seconds; the log sets it as it writes the record
    attempt: Count = 0  # which attempt at the run: 1, and one more with every restart
    id: str | None = None  # of the command that this record answers


class Step(Event, frozen=True, kw_only=True, tag="step"):
    """One optimizer step was done. A metric that was not measured is missing."""

    step: Count  # the first is 1
    loss: Annotated[
        Number | None,
        Metric("loss", "nats", chart=True, compare=True, readout=True, copied=True),
    ] = None  # mean cross-entropy of the step's tokens; null if it is not finite
    tok_s: Annotated[
        Number | None,
        Metric("tok/s", "tokens/s", "count", chart=True, compare=True, readout=True, copied=True),
    ] = None  # speed
    lr: Annotated[
        Number | None,
        Metric("lr", format="rate", status=8, compare=True, readout=True, copied=True),
    ] = None  # learning rate
    grad_norm: Annotated[
        Number | None,
        Metric("grad", status=6, compare=True, readout=True, copied=True),
    ] = None  # norm of the gradient before it is clipped
    attn_logit: Annotated[
        Number | None,
        Metric("attn logit", compare=True, readout=True, copied=True),
    ] = None  # largest attention logit of any head, on at most 256 queries of one sequence; every 10 steps
    step_s: Annotated[
        Number | None,
        Metric("s/step", "s", "duration", status=6, compare=True, readout=True, copied=True),
    ] = None  # duration of the step
    data_s: Annotated[Number | None, Metric("data", "s", "duration")] = None  # of that, waiting for data
    data_share: Annotated[
        Number | None,
        Metric("data wait", format="percent", compare=True, readout=True, copied=True),
    ] = None  # fraction of the step that waits for data
    tokens_day: Annotated[
        Number | None,
        Metric("tokens/day", "tokens/day", "count", compare=True, readout=True, copied=True),
    ] = None  # at the speed of this step
    tokens: Annotated[Count | None, Metric("tokens", "tokens", "count", downsampled="last")] = None  # since the start
    micro: Count | None = None  # sequences in a micro-batch of a rank
    accum: Count | None = None  # micro-batches of a step and rank
    context: Count | None = None  # tokens of a sequence
    device_peak: Annotated[Number | None, Metric("device peak", "bytes", "size", copied=True)] = (
        None  # most device memory in use during the step
    )
    host_states: Annotated[Number | None, Metric("RAM offload", "bytes", "size", copied=True)] = (
        None  # optimizer states in host memory
    )
    mfu: Annotated[Number | None, Metric("MFU", format="percent", copied=True)] = (
        None  # model FLOP/s as a fraction of the peak in the start record
    )
    unified_active: Annotated[Number | None, Metric("unified active", "bytes", "size", chart=True, copied=True)] = (
        None  # unified memory in use
    )
    unified_cache: Annotated[Number | None, Metric("unified cache", "bytes", "size")] = None  # kept by the allocator
    unified_peak: Annotated[Number | None, Metric("unified peak", "bytes", "size", chart=True, copied=True)] = (
        None  # most in use during the step
    )
    unified_limit: Annotated[Number | None, Metric("unified limit", "bytes", "size")] = None  # may be in use


class Val(Event, frozen=True, kw_only=True, tag="val"):
    """The validation loss was measured."""

    step: Count  # after this step; 0 before the first
    loss: Annotated[
        Number | None,
        Metric("val", "nats", status=6, chart=True, compare=True, readout=True, copied=True, name="val_loss"),
    ] = None  # mean cross-entropy of its tokens
    bucket: str | None = None  # the split, such as val
    tokens: Number | None = None  # tokens it was measured on
    bits_per_byte: Annotated[
        Number | None,
        Metric("bits/byte", "bits", compare=True, readout=True, copied=True),
    ] = None  # the loss per byte of text; absent where its bytes are not known
    sources: dict[str, Number | None] | None = None  # loss of each source of a mixture


class Eval(Event, frozen=True, kw_only=True, tag="eval"):
    """The questions of ``train.eval_tasks`` were scored."""

    step: Count  # with the weights after this step
    accuracy: Annotated[
        Number | None,
        Metric("eval acc", format="percent", compare=True, readout=True, copied=True, name="eval_acc"),
    ] = None  # mean over the files of acc_norm, of LAMBADA acc; null if not all were scored
    tasks: dict[str, dict[str, Number | None]] | None = None  # file → metric → value
    seconds: Number | None = None  # it took
    cut: bool = False  # train.eval_seconds were over before its end


class Sample(Event, frozen=True, kw_only=True, tag="sample"):
    """The run generated text from a prompt of ``train.sample_prompts``."""

    step: Count  # with the weights after this step
    prompt: str = ""  # empty: the text begins like a document
    text: str = ""  # how the model continues it
    tokens: Count | None = None  # generated
    seconds: Number | None = None  # it took
    cut: bool = False  # train.sample_seconds were over before its end


class Telemetry(Event, frozen=True, kw_only=True, tag="telemetry"):
    """The machine was sampled: each second live, in the log the minimum and maximum of each minute."""

    device_used: Annotated[Range | None, Metric("VRAM", "bytes", "size", chart=True, copied=True)] = (
        None  # device memory in use by all processes
    )
    device_total: Annotated[Range | None, Metric("VRAM total", "bytes", "size")] = None  # device memory
    device_util: Annotated[Range | None, Metric("GPU", "%", "percent_of_100", status=4)] = None  # time it was busy
    temp_c: Annotated[Range | None, Metric("temp", "°C", "celsius", status=5)] = None  # of the device
    power_w: Annotated[Range | None, Metric("power", "W", "watts", status=5)] = None  # of the device
    rss: Annotated[Range | None, Metric("process memory", "bytes", "size", chart=True, copied=True)] = (
        None  # resident memory of the trainer
    )
    ram_used: Annotated[Range | None, Metric("RAM", "bytes", "size", chart=True, copied=True)] = (
        None  # host memory in use
    )
    ram_total: Annotated[Range | None, Metric("RAM total", "bytes", "size")] = None  # host memory
    swap: Annotated[Range | None, Metric("swap", "bytes", "size")] = None  # swap space in use
    disk_free: Annotated[Range | None, Metric("disk free", "bytes", "size")] = None  # where the run's directory is


class RankStats(Event, frozen=True, kw_only=True, tag="ranks"):
    """What every rank of a run with several measured in a step, in the order of the ranks; about every 10 s."""

    step: Count
    memory: list[Count]  # bytes its card held at most in the step; without a card, resident memory of its process
    tok_s: list[Number]  # tokens per second of its share of the step
    data_s: list[Number]  # seconds of the step that it waited for data


class State(Event, frozen=True, kw_only=True, tag="state"):
    """The run entered a phase."""

    phase: str  # one of the phases below
    reason: str | None = None  # why


class Data(Struct, frozen=True, omit_defaults=True):
    """Which shards an attempt reads."""

    digest: str | None = None  # their fingerprint; data-DIGEST.json in the run's directory lists them
    new_segment: bool = False  # they are others than those of the checkpoint, accepted by a user


class Start(Event, frozen=True, kw_only=True, tag="start"):
    """An attempt begins to train."""

    resumed_from: Count | None = None  # step of the checkpoint; none from scratch
    plan: dict[str, Any] | None = None  # which implementations it uses
    params: Number | None = None  # parameters of the model
    device: str | None = None  # name of the device
    peak_flop_s: Number | None = None  # FLOP/s of matrix products of one device, which mfu is a fraction of
    peak_source: str | None = None  # published or measured
    versions: dict[str, Any] | None = None  # of the libraries
    data: Data | None = None  # the shards it reads


class Edit(Event, frozen=True, kw_only=True, tag="edit"):
    """A live edit was applied or refused."""

    ok: bool  # whether it was applied
    changed: dict[str, tuple[Any, Any]]  # setting → old and new value
    step: Count  # it holds from the step after this one
    by: str | None = None  # who asked: a client, or oom for the run itself
    why: str | None = None  # why it was refused, or made


class Spec(Event, frozen=True, kw_only=True, tag="spec"):
    """The values of the spec that edits can change, as they are now."""

    step: Count  # they hold from the step after this one
    values: dict[str, Any] | None = None  # key of the spec → value
    accum: Count | None = None  # micro-batches of a step and rank
    later: list[Planned] | None = None  # edits of earlier attempts that this one makes again, in order


class Rewind(Event, frozen=True, kw_only=True, tag="rewind"):
    """A step was not finite; the next attempt skips the data up to it."""

    step: Count  # of the checkpoint it resumes from
    cursor: dict[str, Any] | None = None  # the place in the data behind the bad step
    why: str | None = None


class Checkpoint(Event, frozen=True, kw_only=True, tag="checkpoint"):
    """A checkpoint was written, or could not be."""

    ok: bool
    step: Count | None = None
    path: str | None = None
    bytes: Count | None = None  # size
    seconds: Number | None = None  # time to write it
    stall_s: Number | None = None  # seconds of them that training waited for it
    why: str | None = None  # why it could not be written


class Exit(Event, frozen=True, kw_only=True, tag="exit"):
    """The trainer of an attempt exited."""

    code: ExitCode | None = None  # exit status, if known
    signal: str | None = None  # name of the signal that killed it
    why: str | None = None


class Oom(Event, frozen=True, kw_only=True, tag="oom"):
    """Memory ran out."""

    where: str | None = None  # phase of the step, or host: the kernel killed the trainer
    wanted: Count | None = None  # bytes that could not be allocated
    text: str | None = None  # what the allocator said
    action: str | None = None  # what the run does: micro N, ask, fail, restart
    parts: dict[str, Count] | None = None  # forecast: part → bytes
    micro: Count | None = None  # that did not fit
    accum: Count | None = None
    capacity: Count | None = None  # bytes that the process could have had


class Measured(Struct, frozen=True, omit_defaults=True):
    """The highest memory measured, bytes."""

    device: Count | None = None
    host: Count | None = None


class Memory(Event, frozen=True, kw_only=True, tag="memory"):
    """What the run is predicted to take, and what it took."""

    parts: dict[str, Count] | None = None  # forecast: part → bytes
    measured: Measured | None = None  # once the run has been at its fullest
    micro: Count | None = None  # micro, sequences and context for which this holds
    sequences: Count | None = None
    context: Count | None = None


class Alert(Event, frozen=True, kw_only=True, tag="alert"):
    """Something that a user may want to act on."""

    # nan, logits, stall, stall-over, pressure, disk, device_lost, slow, files, version, checkpoint, data
    what: str | None = None
    text: str | None = None


class Log(Event, frozen=True, kw_only=True, tag="log"):
    """A line of text."""

    level: str | None = None  # info, warning or error
    text: str | None = None
    rank: Count | None = None  # the rank it came from


class Progress(Event, frozen=True, kw_only=True, tag="progress"):
    """How far the current step is. Sent to clients, not logged."""

    step: Count | None = None  # the step that is being done
    micro_done: Count | None = None  # micro-batches that the device has finished
    micro_of: Count | None = None  # micro-batches of the step
    tok_s: Number | None = None  # tokens per second so far


class Link(Event, frozen=True, kw_only=True, tag="link"):
    """A client's connection to the supervisor was made or lost. Made by the client, not logged."""

    up: bool


class CutOff(Event, frozen=True, kw_only=True, tag="cut-off"):
    """No process works on the run any more, and it has not ended. Made by the client, not logged."""

    phase: str  # cut-off, or damaged if its directory was damaged or removed
    reason: str | None = None


class Command(Event, frozen=True, kw_only=True, tag="command"):
    """A request to the trainer, in ``commands.jsonl``. The record that answers it has its id."""

    id: str
    request: TrainerRequest  # its method and its parameters
    by: str = ""  # who sent it


LOGGED: tuple[type[Event], ...] = (
    *(Step, Val, Eval, Sample, Telemetry, RankStats, State, Start, Edit, Spec, Rewind, Checkpoint, Exit, Oom, Memory),
    *(Alert, Log),
)
LIVE: tuple[type[Event], ...] = (Progress, Link, CutOff)
_ALL: tuple[type[Event], ...] = (*LOGGED, *LIVE, Command)
KINDS = {str(one.__struct_config__.tag): one for one in _ALL}
