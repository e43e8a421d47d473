"""Defines what a client can ask of a run: over the socket, and what is for the trainer also in ``commands.jsonl``.

One class per method. On the socket the fields are its ``params``; a field may be missing if it has a default.
"""

from typing import Annotated, Any

from msgspec import Meta, Struct, field

from engine.events.numbers import Count

CommandId = Annotated[str, Meta(pattern="^[0-9a-f]{12}$")]


class Request(Struct, frozen=True, omit_defaults=True, tag_field="method"):
    """A request without parameters, unless its class has fields."""

    @property
    def method(self) -> str:
        return str(self.__struct_config__.tag)


class SetRequest(Request, frozen=True, kw_only=True, tag="set"):
    """Edit the live run."""

    changes: dict[str, Any]  # setting → value
    unlock: bool = False  # also what changes tokens per step or their order
    force: bool = False  # also what is predicted not to fit


class PauseRequest(Request, frozen=True, tag="pause"):
    """Hold the run."""


class ResumeRequest(Request, frozen=True, kw_only=True, tag="resume"):
    """Go on after a pause, or with what needed attention."""

    data_changed: bool = False  # go on with the data as it is now


class CheckpointRequest(Request, frozen=True, tag="checkpoint"):
    """Write a checkpoint."""


class StopRequest(Request, frozen=True, kw_only=True, tag="stop"):
    """End the run."""

    save: bool = True  # a checkpoint first
    kill: bool = False  # at once, by SIGKILL


class HelloRequest(Request, frozen=True, tag="hello"):
    """Ask who answers."""


class StatusRequest(Request, frozen=True, tag="status"):
    """Ask for the state of the run."""


class HistoryRequest(Request, frozen=True, kw_only=True, tag="history"):
    """Ask for series of the run."""

    series: list[str]  # names
    points: Count = 2000  # most buckets of each
    since: float | None = None  # from this step on
    until: float | None = None  # up to this step
    marks: bool = False  # also the marks of charts, and the newest memory record


class SubscribeRequest(Request, frozen=True, kw_only=True, tag="subscribe"):
    """Ask for every record as an event, and for what is not logged."""

    start: Count = field(name="from", default=0)  # offset of the log


TrainerRequest = SetRequest | PauseRequest | ResumeRequest | CheckpointRequest | StopRequest
FOR_TRAINER: tuple[type[Request], ...] = (SetRequest, PauseRequest, ResumeRequest, CheckpointRequest, StopRequest)
FOR_SUPERVISOR: tuple[type[Request], ...] = (HelloRequest, StatusRequest, HistoryRequest, SubscribeRequest)
REQUESTS = {str(kind.__struct_config__.tag): kind for kind in (*FOR_SUPERVISOR, *FOR_TRAINER)}
