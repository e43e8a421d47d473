"""Does work beside training, such as samples of text, between two steps: within a time budget, changing no loss.

The work is a generator of short pieces. Between two pieces the run answers its commands, so that a stop or a pause
waits for one piece at most.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager

import torch

from engine.events.types import Event, Log
from engine.memory.between_steps import free_between_steps
from engine.memory.hardware import Hardware
from engine.train.backends.backend import Backend
from engine.train.backends.ranks import Ranks
from engine.train.oom.recognize import OutOfMemory, catch_oom, requested
from engine.train.reporter import Reporter
from engine.train.run_state import RunState
from engine.train.work_clock import WorkClock
from profiles.errors import UserError


class Budget:
    """The ``seconds`` that work may take. ``over`` changes between two pieces only, and on all ranks at once."""

    def __init__(self, seconds: float, clock: WorkClock) -> None:
        self.seconds = seconds
        self.over = False
        self.clock = clock
        self._deadline = clock.now() + seconds

    @property
    def has_passed(self) -> bool:
        """Whether the time is up on this rank."""
        return self.clock.now() >= self._deadline


Work = Callable[[Budget], Generator[Event | None, None, None]]
"""Yields after every piece: an event for the log, or None. Once ``Budget.over`` it yields what it has, and returns.

Every rank calls it, and it yields as often on each.
"""

_END = object()


class TimedWork:
    """``between`` is called after every piece; what it raises ends the work."""

    def __init__(
        self,
        backend: Backend,
        state: RunState,
        ranks: Ranks,
        reporter: Reporter,
        hardware: Hardware,
        between: Callable[[], None],
    ) -> None:
        self._backend = backend
        self._state = state
        self._ranks = ranks
        self._reporter = reporter
        self._hardware = hardware
        self._between = between

    def run(self, name: str, work: Work, seconds: float, needed: int) -> None:
        """Do ``work`` for about ``seconds`` and log its events.

        It is skipped where a rank has less than ``needed`` bytes free between two steps. An out-of-memory error or a
        ``UserError`` ends it. Both are logged with its ``name``, and the run goes on.
        """
        if why := self._shortage(needed):
            self._reporter.record(Log(level="warning", text=f"{name} skipped: {why}"))
            return
        budget = Budget(seconds, self._state.clock)
        with self._training_unchanged(), closing(work(budget)) as pieces:
            more = True
            while more:
                more, why = self._do_piece(pieces)
                budget.over = bool(self._ranks.sum_over_ranks(self._ranks.rank == 0 and budget.has_passed))
                self._between()
        if why:
            self._backend.empty_cache()
            self._reporter.record(Log(level="warning", text=f"{name} ended early: {why}"))

    def _shortage(self, needed: int) -> str:
        """Return why the work does not fit beside the run, on whichever rank, or nothing."""
        free = max(0, free_between_steps(self._state.spec, self._hardware, self._backend.capacity()))
        if not self._ranks.sum_over_ranks(free < needed):
            return ""
        return f"it needs {needed / 1e6:,.0f} MB of memory, the forecast leaves {free / 1e6:,.0f} MB between two steps"

    def _do_piece(self, pieces: Iterator[Event | None]) -> tuple[bool, str]:
        """Do one piece; return whether another may follow, and why the work ended early, on whichever rank."""
        found: object = _END
        why = ""
        try:
            found = catch_oom(lambda: next(pieces, _END), self._backend.phases)
        except UserError as error:
            why = str(error)
        match found:
            case OutOfMemory():
                why = f"out of memory{requested(found)}"
            case Event():
                self._reporter.record(found)
        if self._ranks.sum_over_ranks(bool(why)):
            return False, why or "another rank cannot do it"
        return found is not _END, ""

    @contextmanager
    def _training_unchanged(self) -> Iterator[None]:
        """Keep random numbers and compiled graphs as they are, and the peak of memory that of the steps."""
        cards = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with ExitStack() as stack:
            stack.callback(self._backend.device_peak)  # begins a new peak
            stack.enter_context(torch.random.fork_rng(cards))
            if self._backend.plan["compile"] != "off":
                # Every new length of a text would be compiled, and count towards the limit of recompiles.
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            yield
