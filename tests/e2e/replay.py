"""Trains a spec again in this process, to compare its losses with those of a run."""

from __future__ import annotations

from pathlib import Path

from engine.events.types import Edit, Event, Step
from engine.train.backends.torch_backend import TorchBackend
from engine.train.loop import Trainer
from engine.train.reporter import SilentReporter
from engine.train.run_state import RunState
from profiles.spec import RunSpec


class Replay(SilentReporter):
    """Replays recorded edits, and keeps the losses."""

    def __init__(self, edits: list[Edit]) -> None:
        self.losses: dict[int, float] = {}
        self._edits = edits

    def events_to_replay(self) -> list[Event]:
        return [*self._edits]

    def record(self, event: Event) -> None:
        if isinstance(event, Step) and event.loss is not None:
            self.losses[event.step] = event.loss


def replayed_losses(
    spec: RunSpec, out: Path, edits: list[Edit] | None = None, resume: Path | None = None
) -> dict[int, float]:
    """Train ``spec`` from ``resume`` with the recorded ``edits``; return the loss of each step."""
    replay = Replay(edits or [])
    Trainer(RunState(spec), TorchBackend(spec), replay, out).run(resume, None)
    return replay.losses
