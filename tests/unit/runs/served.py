"""A run with a server. Server and log are real; a ``LogWriter`` stands for the trainer."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.events.log import LogWriter
from engine.events.log_index import LogIndex
from engine.events.run_dir import RunDir
from engine.events.types import Event
from engine.runs.server import Server

TIMEOUT = 20.0  # seconds


@dataclass
class Served:
    """A run under supervision: its index follows the log, as the supervisor's does."""

    run_dir: RunDir
    log: LogWriter
    stopped_by: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.index = LogIndex(self.run_dir)
        self.server = Server(self)

    def request_stop(self, id: str) -> None:
        self.stopped_by.append(id)

    def kill_trainer(self, id: str) -> None:
        self.stopped_by.append(id)

    def on_event(self, event: Event) -> None:
        pass

    def write(self, event: Event) -> None:
        self.log.write(event)
        self.index.poll()
        self.server.notify()
