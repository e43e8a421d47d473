"""What was asked of a run and is not yet done, in the order in which it was asked."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from engine.events.commands import Command
from engine.train.backends.ranks import Ranks
from engine.train.reporter import Reporter


class StopRequested(Exception):
    """The person (or SIGTERM) asked for the end."""

    def __init__(self, command: Command) -> None:
        super().__init__(command.id)
        self.id = command.id
        self.save = bool(command.params.get("save", True))
        self.by = command.by


class CommandQueue:
    """Each rank has one, and all hold the same: what rank 0 hears."""

    def __init__(self, reporter: Reporter, ranks: Ranks) -> None:
        self._reporter = reporter
        self._ranks = ranks
        self._asked: deque[Command] = deque()
        self._queue: deque[Command] = deque()

    def ask(self, command: Command) -> None:
        """Take a command that came past the reporter, such as a signal, at any moment."""
        self._asked.append(command)

    def hear(self, also: Callable[[], bool]) -> bool:
        """Queue what was asked since the last call; what ``also`` says on rank 0."""
        asked, told = self._ranks.run_on_rank_zero(lambda: (self._all_asked(), also()))
        self._queue.extend(asked)
        return told

    def take(self, *methods: str) -> Command | None:
        """The oldest command (of ``methods``, if any are named), which is for the caller to do."""
        found = next((command for command in self._queue if not methods or command.method in methods), None)
        if found is not None:
            self._queue.remove(found)
        return found

    def _all_asked(self) -> list[Command]:
        signals = [self._asked.popleft() for _ in range(len(self._asked))]
        return [*signals, *self._reporter.commands()]
