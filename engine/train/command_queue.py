"""Queues the commands a run was given, in the order in which they were given."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from engine.events.requests import CheckpointRequest, PauseRequest, Request, ResumeRequest, StopRequest
from engine.events.types import Command
from engine.train.backends.ranks import Ranks
from engine.train.reporter import Reporter


class StopRequested(Exception):
    """A user, or SIGTERM, asked the run to end."""

    def __init__(self, id: str, save: bool, by: str) -> None:
        super().__init__(id)
        self.id = id
        self.save = save
        self.by = by


class CommandQueue:
    """Each rank has one, and all hold the same commands: those that rank 0 received."""

    def __init__(self, reporter: Reporter, ranks: Ranks) -> None:
        self._reporter = reporter
        self._ranks = ranks
        self._signals: deque[Command] = deque()
        self._queue: deque[Command] = deque()

    def put(self, command: Command) -> None:
        """Take in a command that did not come through the reporter, such as a signal. Safe in a signal handler."""
        self._signals.append(command)

    def poll(self, also: Callable[[], bool]) -> bool:
        """Queue what rank 0 has received since the last call; return what ``also`` says on rank 0."""
        received, answer = self._ranks.run_on_rank_zero(lambda: (self._receive(), also()))
        self._queue.extend(received)
        return answer

    def pop(self, *kinds: type[Request]) -> Command | None:
        """Remove and return the oldest command (with a request of ``kinds``, if any are named), or None."""
        found = next((command for command in self._queue if not kinds or isinstance(command.request, kinds)), None)
        if found is not None:
            self._queue.remove(found)
        return found

    def pop_urgent(self) -> Command | None:
        """Remove and return the oldest pause, resume or stop that need not wait for the end of the step, or None.

        Commands hold in the order given. A pause after a request for a checkpoint waits for that checkpoint, and a
        resume after that pause waits for the pause. A stop saves anyway, or is to save nothing.
        """
        waits = False
        for command in self._queue:
            request = command.request
            waits = waits or isinstance(request, CheckpointRequest)
            if isinstance(request, StopRequest) or (isinstance(request, PauseRequest | ResumeRequest) and not waits):
                self._queue.remove(command)
                return command
        return None

    def _receive(self) -> list[Command]:
        signals = [self._signals.popleft() for _ in range(len(self._signals))]
        return [*signals, *self._reporter.commands()]
