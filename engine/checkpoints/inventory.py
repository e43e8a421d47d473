"""The checkpoints of a run as a person wants them listed: what each is, what the log knows of it, what may go.

No torch: the app asks this.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.checkpoints import checkpoint
from engine.events.log import Record, scan
from engine.events.run_dir import RunDir
from profiles.errors import UserError
from profiles.spec import RunSpec

_AT_WORK = ("starting", "compiling", "running", "recovering")


@dataclass(frozen=True, slots=True)
class SavedCheckpoint:
    """One checkpoint. ``written`` in seconds since 1970; ``loss`` of its step, ``val_loss`` the last one known by then;
    ``why`` it was written and ``damage`` are empty where there is nothing to say, ``damage`` by sizes alone."""

    step: int
    path: str
    bytes: int
    written: float
    loss: float | None
    val_loss: float | None
    why: str
    damage: str
    newest: bool
    best: bool

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def folder_of(run: RunDir) -> Path:
    """Where the run writes its checkpoints. Raises ``UserError`` for a run whose spec is damaged."""
    return Path(run.spec().train.out) / run.name


def inventory(run: RunDir) -> list[SavedCheckpoint]:
    """The checkpoints of ``run``, the newest first; reads no tensors. Raises ``UserError``."""
    out, spec = folder_of(run), run.spec()
    steps = checkpoint.steps(out)
    told = _Told(spec)
    if steps:
        told.read(
            scan(run.log_path, *(f'"kind":"{kind}"'.encode() for kind in _Told.KINDS), *map(_needle, steps)), {*steps}
        )
    newest, best = checkpoint.latest(out), checkpoint.best_step(out)
    return [_kept(out, step, told, newest, best) for step in reversed(steps)]


def _needle(step: int) -> bytes:
    return f'"step":{step},'.encode()


def _kept(out: Path, step: int, told: _Told, newest: Path | None, best: int | None) -> SavedCheckpoint:
    path = checkpoint.of_step(out, step)
    damage, facts = "", {}
    try:
        facts = checkpoint.facts(path)
        checkpoint.check_sizes(path)
    except UserError as error:
        damage = str(error).partition(";")[0].removeprefix(f"{path}/").removeprefix(f"{path}: ")
    return SavedCheckpoint(
        step=step,
        path=str(path),
        bytes=_bytes(path),
        written=_written(path),
        loss=told.loss.get(step),
        val_loss=told.val_loss.get(step, facts.get("val_loss")),
        why=told.why.get(step, ""),
        damage=damage,
        newest=path == newest,
        best=step == best,
    )


def _bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.iterdir() if file.is_file())


def _written(path: Path) -> float:
    try:
        return (path / "manifest.json").stat().st_mtime
    except OSError:
        return path.stat().st_mtime


class _Told:
    """What a log says of some steps; where attempts repeat a step, the last one stands."""

    KINDS = ("checkpoint", "state", "edit", "oom")

    def __init__(self, spec: RunSpec) -> None:
        self.loss: dict[int, float | None] = {}
        self.val_loss: dict[int, float | None] = {}
        self.why: dict[int, str] = {}
        self._train = spec.train
        self._every = spec.train.save_every
        self._stopping = self._short = False

    def read(self, records: Iterable[tuple[int, Record]], steps: set[int]) -> None:
        for _, record in records:
            kind, step = record["kind"], record.get("step")
            if kind == "checkpoint" and record.get("ok") and step in steps:
                self.why[step] = self._why(record)
                self._short = False
            elif kind == "state":
                self._stopping = record["phase"] == "stopping" or (self._stopping and record["phase"] not in _AT_WORK)
            elif kind == "edit" and record.get("ok"):
                self._every = record["changed"].get("save_every", [0, self._every])[1]
            elif kind == "oom":
                self._short = True
            elif kind == "step" and step in steps:
                self.loss[step] = record.get("loss")
            elif kind == "val" and step in steps:
                self.val_loss[step] = record.get("loss")

    def _why(self, record: Record) -> str:
        step = record["step"]
        if record.get("id"):
            return "asked for"
        if self._stopping:
            return "stop"
        if step == self._train.steps:
            return "last step"
        if self._every and step % self._every == 0:
            return f"every {self._every}"
        return "out of memory" if self._short else ""
