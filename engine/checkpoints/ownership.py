"""Tells which checkpoints in the folder of a run are its own: a run continued under its own name shares the folder."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from engine.checkpoints import checkpoint
from engine.events.log import needles, scan
from engine.events.run_dir import RunDir
from engine.events.types import Checkpoint
from profiles.errors import UserError
from profiles.printable import counted, one_line


@dataclass(frozen=True, slots=True)
class RunCheckpoints:
    """The checkpoints in the folder ``out`` of a run, by step, ascending.

    ``own``: those that it saved. ``source``: the one that it resumed from, if that lies there. ``others``: the id of
    the run that saved each of the others, "" for one in the foreground.
    """

    out: Path
    own: list[int]
    source: int | None
    others: dict[int, str]

    @property
    def steps(self) -> list[int]:
        """What the run has: its own, and where it has gone on from."""
        return sorted({*self.own, *([] if self.source is None else [self.source])})

    @property
    def newest(self) -> Path | None:
        return checkpoint.newest_of(self.out, self.steps)

    def rest(self) -> str:
        """Return how many more there are and whose, in words; nothing where there are none."""
        count = Counter(id for step, id in self.others.items() if step != self.source)
        return ", ".join(f"{counted(n, 'checkpoint')} of {saved_by(id)}" for id, n in sorted(count.items()))


def saved_by(id: str) -> str:
    return f"run {one_line(id)}" if id else "a run in the foreground"


def checkpoint_dir(run: RunDir) -> Path:
    """Return the directory of the run's checkpoints. Raises ``UserError`` if the run's spec is damaged."""
    return Path(run.spec().train.out) / run.name


def checkpoints_of(run: RunDir) -> RunCheckpoints:
    """Return the checkpoints in the folder of ``run``. Raises ``UserError`` if the run's spec is damaged.

    One that does not say who saved it is of the run whose log says so; else it counts as own.
    """
    out = checkpoint_dir(run)
    owners = {step: checkpoint.owner(checkpoint.path_of_step(out, step)) for step in checkpoint.steps(out)}
    unsaid = {step for step, owner in owners.items() if owner is None}
    if unsaid and (unsaid := unsaid - _logged_saves(run)):
        for other in _sharing(run, out):
            owners.update(dict.fromkeys(unsaid & _logged_saves(other), other.id))
    own = [step for step, owner in owners.items() if owner in (None, run.id)]
    others = {step: owner for step, owner in owners.items() if owner is not None and owner != run.id}
    return RunCheckpoints(out, own, _source(run, out, others), others)


def _source(run: RunDir, out: Path, others: dict[int, str]) -> int | None:
    resume = run.launch().resume
    if not resume or os.path.realpath(os.path.dirname(resume)) != os.path.realpath(out):
        return None
    return next((step for step in others if checkpoint.path_of_step(out, step).name == Path(resume).name), None)


def _sharing(run: RunDir, out: Path) -> list[RunDir]:
    """Return the other runs that save, or saved, to ``out``."""
    found = []
    for path in run.path.parent.iterdir():
        other = RunDir(path)
        try:
            if other.id != run.id and other.name == run.name and checkpoint_dir(other) == out:
                found.append(other)
        except UserError:
            continue  # a damaged spec: its folder is not known
    return found


def _logged_saves(run: RunDir) -> set[int]:
    """Return the steps whose checkpoints ``run`` has written, as its log says."""
    found = scan(run.log_path, *needles(Checkpoint))
    # Without bytes nothing was written: the checkpoint of that step was there already.
    saves = (event for _, event in found if isinstance(event, Checkpoint) and event.ok and event.bytes)
    return {event.step for event in saves if event.step is not None}
