"""Lists a run's checkpoints with their size, losses, reason and damage, from the files and the log. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from engine.checkpoints import checkpoint
from engine.checkpoints.evals import EvalResult, read_results
from engine.checkpoints.ownership import RunCheckpoints, checkpoints_of
from engine.checkpoints.retention import best_step
from engine.events.log import needles, scan
from engine.events.phases import COMPILING, RECOVERING, RUNNING, STARTING, STOPPING
from engine.events.run_dir import RunDir
from engine.events.types import Checkpoint, Edit, Event, Oom, State, Step, Val
from engine.host import struct_json
from profiles.errors import UserError
from profiles.spec import RunSpec

_CADENCE = {"steps", "stop_step", "save_every"}  # what of train a live edit changes and a save follows
_TRAINING = (STARTING, COMPILING, RUNNING, RECOVERING)  # none of them follows a stop


@dataclass(frozen=True, slots=True)
class SavedCheckpoint:
    """One checkpoint.

    ``written``: Unix time. ``loss``: of its step. ``val_loss``: the last validation up to its step, ``val_step``: of
    which step that is, if known. ``why``: the reason it was saved, if known. ``damage``: empty where file sizes match
    the manifest. ``run``: the id of the run that saved it, if that is another one; "" for one in the foreground.
    ``evals``: see ``evals.py``.
    """

    step: int
    path: str
    bytes: int
    written: float
    loss: float | None
    val_loss: float | None
    val_step: int | None
    why: str
    damage: str
    newest: bool
    best: bool
    run: str | None
    evals: tuple[EvalResult, ...] = ()

    @property
    def is_validated(self) -> bool:
        """Whether its validation loss is that of its own weights, not of an earlier step."""
        return self.val_step in (None, self.step)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "evals": [struct_json.to_dict(result) for result in self.evals]}


def inventory(run: RunDir) -> list[SavedCheckpoint]:
    """Return the checkpoints of ``run`` and the one it resumed from, newest first, without reading tensors.

    Raises ``UserError``.
    """
    has, spec = checkpoints_of(run), run.spec()
    logged = _LoggedSteps(spec)
    if has.own:
        of_steps = [f'"step":{step}{end}'.encode() for step in has.own for end in ",}"]
        logged.read(scan(run.log_path, *needles(Checkpoint, State, Edit, Oom, Val), *of_steps), {*has.own})
    best, found = best_step(has.newest), []
    for step in reversed(has.steps):
        with suppress(FileNotFoundError):  # retention has just deleted it
            found.append(_saved_checkpoint(has, step, logged if step in has.own else _LoggedSteps(spec), best))
    return found


def _saved_checkpoint(has: RunCheckpoints, step: int, logged: _LoggedSteps, best: int | None) -> SavedCheckpoint:
    path = checkpoint.path_of_step(has.out, step)
    damage, metadata = "", {}
    evals: tuple[EvalResult, ...] = ()
    try:
        metadata = checkpoint.metadata(path)
        checkpoint.check_sizes(path)
        evals = tuple(read_results(path))
    except UserError as error:
        damage = str(error).partition(";")[0].removeprefix(f"{path}/").removeprefix(f"{path}: ")
    val_step = max((at for at in logged.val_loss if at <= step), default=None)
    return SavedCheckpoint(
        step=step,
        path=str(path),
        bytes=_bytes(path),
        written=_written(path),
        loss=logged.loss.get(step),
        val_loss=metadata.get("val_loss") if val_step is None else logged.val_loss[val_step],
        val_step=val_step,
        why=logged.why.get(step, ""),
        damage=damage,
        newest=path == has.newest,
        best=step == best,
        run=has.others.get(step),
        evals=evals,
    )


def _bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.iterdir() if file.is_file())


def _written(path: Path) -> float:
    try:
        return (path / "manifest.json").stat().st_mtime
    except OSError:
        return path.stat().st_mtime


class _LoggedSteps:
    """What the log says about the saved steps. Where attempts repeat a step, the last one counts."""

    def __init__(self, spec: RunSpec) -> None:
        self.loss: dict[int, float | None] = {}
        self.val_loss: dict[int, float | None] = {}
        self.why: dict[int, str] = {}
        self._train = spec.train
        self._stopping = self._out_of_memory = False

    def read(self, events: Iterable[tuple[int, Event]], steps: set[int]) -> None:
        for _, event in events:
            match event:
                case Checkpoint(ok=True, step=int(step)) if step in steps:
                    self.why[step] = self._why(step, requested=event.id is not None)
                    self._out_of_memory = False
                case State(phase=phase):
                    self._stopping = phase == STOPPING or (self._stopping and phase not in _TRAINING)
                case Edit(ok=True):
                    changed: dict[str, Any] = {
                        key: new for key, (_, new) in event.changed.items() if key in _CADENCE and type(new) is int
                    }
                    self._train = replace(self._train, **changed)
                case Oom():
                    self._out_of_memory = True
                case Step() if event.step in steps:
                    self.loss[event.step] = event.loss
                case Val():
                    self.val_loss[event.step] = event.loss

    def _why(self, step: int, requested: bool) -> str:
        if requested:
            return "requested"
        if self._stopping:
            return "stop"
        if step == self._train.last_step:
            return "last step"
        every = self._train.save_every
        if every and step % every == 0:
            return f"every {every}"
        return "out of memory" if self._out_of_memory else ""
