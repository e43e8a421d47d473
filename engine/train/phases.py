"""Reports the phase of a training step to any number of listeners.

A backend enters a phase before it begins the work. What a listener does with it is its own affair: the out-of-memory
handler asks which phase an error came from, a benchmark times the phases.
"""

from __future__ import annotations

from collections.abc import Callable

IDLE = "idle"  # between steps, and while the data of a step is read
FORWARD, BACKWARD, OPTIMIZER, VALIDATION = "forward", "backward", "optimizer", "validation"
REDUCE = "reduce"  # gradients are summed over the ranks and their norm is taken; weights are not touched yet

PhaseListener = Callable[[str], None]


class Phases:
    """The ``current`` phase of one backend."""

    def __init__(self) -> None:
        self.current = IDLE
        self._listeners: list[PhaseListener] = []

    def listen(self, listener: PhaseListener) -> None:
        """Have ``listener`` called with every phase that is entered from now on."""
        self._listeners.append(listener)

    def enter(self, phase: str) -> None:
        """Leave the current phase and begin ``phase``."""
        self.current = phase
        for listener in self._listeners:
            listener(phase)
