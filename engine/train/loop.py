"""The training loop: data order, accumulation, schedule, validation, checkpoints, and what a person asks meanwhile."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any, NoReturn

from data.cursor import Cursor
from engine.jobs.commands import Command
from engine.memory.hardware import detect_hardware
from engine.preflight import check_data, open_split, slow_paths
from engine.train import checkpoint, pretrained
from engine.train.backend import Backend
from engine.train.edits import applied, changed, edited
from engine.train.orders import Orders, StopRun
from engine.train.past import Past, Rewound, due
from engine.train.ranks import OneRank, Ranks
from engine.train.reporter import Reporter
from engine.train.room import check_room
from engine.train.saver import Saver
from engine.train.schedule import learning_rate
from engine.version import package_version
from profiles.errors import UserError
from profiles.spec import RunSpec

PAUSE_POLL = 0.1


class Trainer:
    """One attempt at one run. ``spec.batch`` follows the live edits; everything else of the spec stays.

    Each rank has one, and all go the same way: what one of them alone can know, such as a command, rank 0 decides.
    """

    def __init__(
        self,
        spec: RunSpec,
        backend: Backend,
        reporter: Reporter,
        out: Path,
        ranks: Ranks | None = None,
        supervised: bool = False,
    ) -> None:
        self.spec = spec
        self.backend = backend
        self.reporter = reporter
        self.out = out
        self.ranks = ranks or OneRank()
        self.supervised = supervised
        self.step = 0
        self.train_data = open_split(spec, "train")
        self.val_batches = _validation(spec)
        self.cursor: Cursor = self.train_data.start()
        self.val_loss: float | None = None
        self.saver = Saver(out, spec.train.keep, reporter, self.ranks)
        self.phase = "starting"
        self.orders = Orders(reporter, self.ranks)
        self._past = Past.of([])

    # -- from the first step to the last

    def run(self, resume: Path | None, init_from: Path | None) -> str:
        """Train until the last step or a stop; returns the phase the run ended in. Raises ``UserError``."""
        try:
            return self._run(resume, init_from)
        finally:
            self.saver.close()

    def _run(self, resume: Path | None, init_from: Path | None) -> str:
        self._begin(resume, init_from)
        try:
            if self._past.paused:
                self._pause("was paused when the attempt before it ended", None)
            if self.step == 0:
                self._validate()
            while self.step < self._last_step:
                self._obey()
                self._train_step()
                cadence = self.spec.train
                if self._due(cadence.val_every):
                    self._validate()
                if self._due(cadence.save_every):
                    self._save()
                if self.step == self._last_step:  # here too, for it may be moved meanwhile
                    self._obey()
            if self.spec.train.val_every and self.step % self.spec.train.val_every:
                self._validate()
        except StopRun as stop:
            self.backend.discard()
            self._enter("stopping", f"asked by {stop.by}", stop.id)
            why = self._save_now() if stop.save else self._settle()
            self._enter("stopped", f"asked by {stop.by}" + (f"; no checkpoint: {why}" if why else ""))
            return "stopped"
        if why := self._save_now():
            raise UserError(f"the last checkpoint could not be written: {why}; make room and --resume latest")
        if self.step < self.spec.train.steps:
            self._enter("stopped", f"reached stop_step = {self.step}")
            return "stopped"
        self._enter("finished")
        return "finished"

    @property
    def _last_step(self) -> int:
        train = self.spec.train
        return min(train.steps, train.stop_step or train.steps)

    def _hear(self) -> None:
        """Hear what was asked since the last call; tell of a checkpoint that has been written."""
        if self.orders.hear(lambda: self.saver.ready):
            self._settle()

    def _enter(self, phase: str, reason: str = "", id: str | None = None) -> None:
        self.phase = phase
        self.reporter.record("state", phase=phase, reason=reason, **({"id": id} if id else {}))

    def _due(self, every: int) -> bool:
        return bool(every) and self.step % every == 0

    def _begin(self, resume: Path | None, init_from: Path | None) -> None:
        self._past = Past.of(self.ranks.decide(self.reporter.past))
        if resume is not None:
            self._restore(resume)
        elif init_from is not None:
            self.backend.restore_weights(pretrained.weights(init_from))
        self._past.begin_at(self.step)
        self.reporter.record(
            "start",
            paths=self.backend.paths,
            params=self.spec.model.config.params,
            device=self.backend.device,
            versions={"mla-tui": package_version(), **self.backend.versions},
            resumed_from=self.step or None,
        )
        attention = self.backend.paths["attention"]
        for text in slow_paths(self.spec.model.config, self.backend.device, attention):
            self.reporter.record("alert", what="slow", text=text)
        self._enter("running" if self.backend.paths["compile"] == "off" else "compiling")

    # -- one optimizer step

    def _train_step(self) -> None:
        batch, spec = self.spec.batch, self.spec
        begun = time.perf_counter()
        sequences, cursor = self.train_data.take(self.cursor, batch.sequences)
        share = batch.sequences // self.ranks.size
        own = sequences[self.ranks.rank * share :][:share]
        data_s = time.perf_counter() - begun
        micros = range(0, share, batch.micro)
        for done, first in enumerate(micros):
            if done:
                self._obey_at_once()
                self.reporter.progress(
                    step=self.step + 1,
                    micro_done=done,
                    micro_of=len(micros),
                    tok_s=self.ranks.size * first * batch.context / (time.perf_counter() - begun),
                )
            self.backend.accumulate(own[first : first + batch.micro], spec.tokens_per_step)
        loss, norm = self.backend.totals()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self._not_finite(loss, norm, cursor)
        self._settle()  # from here on the tensors change that it writes
        lr = spec.optim.lr_scale * learning_rate(spec.optim, self.step + 1, spec.train.steps)
        self.backend.apply(lr, spec.optim.clip)
        self.step += 1
        self.cursor = cursor
        step_s = time.perf_counter() - begun
        unified = self.backend.unified()  # before device_peak, which begins a new peak
        self.reporter.record(
            "step",
            step=self.step,
            loss=loss,
            lr=lr,
            grad_norm=norm,
            tokens=self.cursor.tokens,
            tok_s=spec.tokens_per_step / step_s,
            step_s=step_s,
            data_s=data_s,
            micro=batch.micro,
            accum=spec.accum,
            context=batch.context,
            device_peak=self.backend.device_peak(),
            host_states=self.backend.host_states(),
            **unified,
            mfu=None,  # needs the device's measured ceiling, which nothing measures yet
        )
        if self.phase == "compiling":  # the first step has met every graph a step needs
            self._enter("running")

    def _not_finite(self, loss: float, norm: float, behind: Cursor) -> NoReturn:
        """End this attempt as ``train.on_nan`` says; ``behind`` is where the data goes on after the bad step."""
        self.backend.discard()
        self._settle()
        bad, back = self.step + 1, self.saver.newest
        text = f"step {bad}: loss {loss}, gradient norm {norm}; the step was not applied"
        self.reporter.record("alert", what="nan", text=text)
        if self.spec.train.on_nan == "rewind":
            if back is not None and self.supervised:
                self.reporter.record("rewind", step=back, cursor=behind.to_dict(), why=text)
                raise Rewound(f"{text}; goes back to step {back} and skips the sequences up to those of step {bad}")
            lacking = "there is no checkpoint yet" if back is None else "nobody restarts a run in the foreground"
            text += f"; no rewind: {lacking}"
        raise UserError(f"{text}; lower optim.lr and go on with --resume {checkpoint.latest(self.out) or 'latest'}")

    def _validate(self) -> None:
        if not self.spec.train.val_every:
            return
        total = 0.0
        tokens = sum(batch.shape[0] for batch in self.val_batches) * self.spec.batch.context
        for first in range(0, len(self.val_batches), self.ranks.size):
            for batch in self.val_batches[first + self.ranks.rank :][:1]:
                total += self.backend.evaluate(batch)
            self._obey_at_once()
        self.val_loss = self.ranks.total(total) / tokens
        self.reporter.record("val", step=self.step, loss=self.val_loss, bucket="val", tokens=tokens)

    # -- what a person asks

    def _obey(self) -> None:
        """Do everything that was asked; called between optimizer steps, where every command may be carried out."""
        self._repeat_past()
        self._obey_at_once()
        while (command := self.orders.take()) is not None:
            if command.method == "set":
                self._edit(command)
            elif command.method == "checkpoint":
                self._save(command.id)
            elif command.method == "resume":
                self._enter("running", "was not paused", command.id)

    def _obey_at_once(self) -> None:
        """Pause and stop do not wait for the end of the step; called between micro-batches."""
        self._hear()
        while (command := self.orders.take("pause", "stop")) is not None:
            if command.method == "stop":
                raise StopRun(command)
            self._pause(f"asked by {command.by}", command.id)

    def _pause(self, reason: str, id: str | None) -> None:
        self._settle()
        freed = self.ranks.total(self.backend.release())
        # Below that nothing was freed that a person would see.
        told = f"{reason}; {freed / 1e9:.1f} GB of memory freed" if freed >= 5e7 else reason
        self._enter("paused", told, id)
        while True:
            # In the order they were given: pause, pause, resume goes on; pause, resume, pause holds.
            asked = self.orders.take("pause", "resume", "stop")
            if asked is None:
                time.sleep(PAUSE_POLL)
                self._hear()
                continue
            if asked.method == "stop":
                raise StopRun(asked)
            why = self._reclaim() if asked.method == "resume" else "was paused already"
            if not why:
                self._enter("running", f"asked by {asked.by}", asked.id)
                return
            self._enter("paused", why, asked.id)

    def _reclaim(self) -> str:
        """Take back what a pause gave away; why it cannot be, on whichever rank, or nothing."""
        why = ""
        try:
            self.backend.reclaim()
        except UserError as error:
            why = str(error)
        failed = self.ranks.total(bool(why))
        return why or ("another rank has no room any more; resume again" if failed else "")

    def _edit(self, command: Command) -> None:
        changes = command.params.get("changes")
        answer: dict[str, Any] = {"id": command.id, "step": self.step, "by": command.by}
        try:
            if not isinstance(changes, dict):
                raise UserError('set: write the changes as an object, for example {"micro": 4}')
            new = edited(self.spec, changes, unlock=command.params.get("unlock") is True)
            self._check_edit(new, force=command.params.get("force") is True)
        except UserError as error:
            self.reporter.record("edit", **answer, changed={}, ok=False, why=str(error))
            return
        made = changed(self.spec, new)
        self._become(new)
        self.reporter.record("edit", **answer, changed=made, ok=True, why="")
        self._past.supersede(made)

    def _check_edit(self, new: RunSpec, force: bool) -> None:
        """Raises ``UserError``, the same on all ranks."""
        stop = new.train.stop_step
        if stop != self.spec.train.stop_step and 0 < stop < self.step:
            raise UserError(f"set stop_step: {stop} is behind the run, which is at step {self.step}; use a later one")
        if new.batch.context != self.spec.batch.context:
            self.ranks.decide(lambda: check_data(new))
        if not force:
            capacity = self.backend.capacity
            self.ranks.decide(lambda: check_room(self.spec, new, detect_hardware(), capacity()))

    def _become(self, spec: RunSpec) -> None:
        """Go on as ``spec`` says. Another context is another way to cut the data: a new segment of the cursor."""
        before, self.spec = self.spec, spec
        if spec.batch.context != before.batch.context:
            self.train_data = open_split(spec, "train")
            self.val_batches = _validation(spec)
            self.cursor = self.cursor.at_context(spec.batch.context)

    def _repeat_past(self) -> None:
        """Do again, at its step, what an earlier attempt did: spec.json says only how the run began."""
        self._repeat_edits()
        for record in due(self._past.rewinds, self.step):
            self.cursor = Cursor.from_dict(record["cursor"]).at_context(self.spec.batch.context)
            self.saver.saved_step = None  # a checkpoint of this step goes on with other sequences

    def _repeat_edits(self) -> None:
        for record in due(self._past.edits, self.step):
            self._become(applied(self.spec, record))

    # -- checkpoints

    def _save(self, id: str | None = None) -> None:
        """Begin to write a checkpoint of this step. The run goes on, also where it cannot be written."""
        self._settle()
        tokenizer = Path(self.spec.data.root) / self.spec.data.phase / "tokenizer.json"
        self.saver.begin(self.step, self.backend.state, self._facts(), tokenizer, id)

    def _save_now(self) -> str:
        """Have a checkpoint of this step; why it could not be written, or nothing."""
        self._settle()
        if self.saver.saved_step == self.step:
            return ""
        self._save()
        return self._settle()

    def _settle(self) -> str:
        """Wait for the checkpoint that is being written, if one is; why it could not be, or nothing.

        Only this waiting is the phase ``saving``: a run whose checkpoint is written behind it is running.
        """
        waits, before = self.saver.busy and not self.saver.ready, self.phase
        if waits:
            self._enter("saving")
        why = self.saver.settle()
        if waits:
            self._enter(before)
        return why

    def _facts(self) -> dict[str, Any]:
        return {
            "spec": self.spec.to_dict(),
            "cursor": self.cursor.to_dict(),
            "tokens": self.cursor.tokens,
            "val_loss": self.val_loss,
            "versions": {"mla-tui": package_version(), **self.backend.versions},
        }

    def _restore(self, path: Path) -> None:
        state, facts = checkpoint.load(path)
        self.backend.restore(state)
        self.step = self.saver.newest = int(facts["step"])
        self._repeat_edits()  # before the cursor comes: it is of the context that the run had by then
        self.cursor = Cursor.from_dict(facts["cursor"]).at_context(self.spec.batch.context)
        self.val_loss = facts.get("val_loss")
        self.saver.best = tuple(facts["best"]) if facts.get("best") else None
        if path.parent == self.out:  # else the run's own folder has nothing of it yet
            self.saver.saved_step = self.step


def _validation(spec: RunSpec) -> list[Any]:
    """The validation windows, the same all through the run, in batches that fit where a micro-batch does.

    Their size is that of the first micro: a live edit must not change what a validation loss is, to the last bit.
    """
    if not spec.train.val_every:
        return []
    windows = open_split(spec, "val").first(spec.train.val_sequences)
    return [windows[i : i + spec.batch.micro] for i in range(0, len(windows), spec.batch.micro)]
