"""The training loop: data order, accumulation, schedule, validation, checkpoints, and what a person asks meanwhile."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any, NoReturn

from data.cursor import Cursor
from data.splits import check_data
from engine.checkpoints import checkpoint
from engine.events.commands import Command
from engine.host.version import package_version
from engine.memory.hardware import detect_hardware
from engine.preflight import slow_kernels
from engine.train.backends.backend import Backend
from engine.train.backends.ranks import Ranks, SingleRank
from engine.train.checkpoint_saver import CheckpointSaver
from engine.train.command_queue import CommandQueue, StopRequested
from engine.train.edit_history import EditHistory, RestartRequested
from engine.train.edits import changed, edited
from engine.train.models import pretrained
from engine.train.oom.handler import OomHandler
from engine.train.oom.headroom import check_room
from engine.train.oom.memory_monitor import MemoryMonitor
from engine.train.oom.recognize import OPTIMIZER
from engine.train.reporter import Reporter
from engine.train.run_state import RunState
from engine.train.schedule import learning_rate
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
        self.course = RunState(spec)
        self.backend = backend
        self.reporter = reporter
        self.out = out
        self.ranks = ranks or SingleRank()
        self.supervised = supervised
        self.step = 0
        self.val_loss: float | None = None
        hardware = detect_hardware()
        self.keeper = MemoryMonitor(backend, reporter, hardware, out)
        self.rescue = OomHandler(self, self.keeper, hardware)
        self.saver = CheckpointSaver(out, spec.train.keep, reporter, self.ranks)
        self.phase = "starting"
        self.orders = CommandQueue(reporter, self.ranks)
        self._past = EditHistory.of([])

    @property
    def spec(self) -> RunSpec:
        """What the run is by now."""
        return self.course.spec

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
                self.pause("was paused when the attempt before it ended")
            self.rescue.answer_for(self._past)
            if self.step == 0:
                self._validate()
            while self.step < self._last_step:
                self._obey()
                if self.step == self._last_step:  # asked to end with the step just done
                    break
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
        except StopRequested as stop:
            self.backend.discard_window()
            self._enter("stopping", f"asked by {stop.by}", stop.id)
            why = self.save_now() if stop.save else self._settle()
            self._enter("stopped", f"asked by {stop.by}" + (f"; no checkpoint: {why}" if why else ""))
            return "stopped"
        if why := self.save_now():
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
        if self.orders.hear(lambda: self.saver.finished):
            self._settle()

    def _enter(self, phase: str, reason: str = "", id: str | None = None) -> None:
        self.phase = phase
        self.reporter.record("state", phase=phase, reason=reason, **({"id": id} if id else {}))

    def _due(self, every: int) -> bool:
        return bool(every) and self.step % every == 0

    def _begin(self, resume: Path | None, init_from: Path | None) -> None:
        self._past = EditHistory.of(self.ranks.run_on_rank_zero(self.reporter.past))
        if resume is not None:
            self._restore(resume)
        elif init_from is not None:
            self.backend.load_weights(pretrained.weights(init_from))
        self.course.repeat_edits(self._past, self.step)
        self._past.begin_at(self.step)
        self.rescue.recovery.remember(self._past.memory)
        self.reporter.record(
            "start",
            plan=self.backend.plan,
            params=self.spec.model.config.params,
            device=self.backend.device,
            versions={"mla-tui": package_version(), **self.backend.versions},
            resumed_from=self.step or None,
        )
        attention = self.backend.plan["attention"]
        for text in slow_kernels(self.spec.model.config, self.backend.device, attention):
            self.reporter.record("alert", what="slow", text=text)
        self.keeper.changed(self.spec)
        self._enter("running" if self.backend.plan["compile"] == "off" else "compiling")

    # -- one optimizer step

    def _train_step(self) -> None:
        self.rescue.step(self._try_step)

    def _try_step(self) -> None:
        batch, spec = self.spec.batch, self.spec
        begun = time.perf_counter()
        sequences, cursor = self.course.take()
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
        loss, norm = self.backend.window_totals()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self._not_finite(loss, norm, cursor)
        self._settle()  # from here on the tensors change that it writes
        self.keeper.where = OPTIMIZER
        lr = spec.optim.lr_scale * learning_rate(spec.optim, self.step + 1, spec.train.steps)
        self.backend.optimizer_step(lr, spec.optim.clip)
        self.step += 1
        self.course.cursor = cursor
        step_s = time.perf_counter() - begun
        unified, peak = (
            self.backend.unified_memory(),
            self.backend.device_peak(),
        )  # in this order: the latter begins a new peak
        self.reporter.record(
            "step",
            step=self.step,
            loss=loss,
            lr=lr,
            grad_norm=norm,
            tokens=self.course.cursor.tokens,
            tok_s=spec.tokens_per_step / step_s,
            step_s=step_s,
            data_s=data_s,
            micro=batch.micro,
            accum=spec.accum,
            context=batch.context,
            device_peak=peak,
            host_states=self.backend.host_states(),
            **unified,
            mfu=None,  # needs the device's measured ceiling, which nothing measures yet
        )
        self.keeper.step_done(spec, self.step, peak)
        self.rescue.recovery.step_done(spec, peak)
        if self.phase == "compiling":  # the first step has met every graph a step needs
            self._enter("running")

    def _not_finite(self, loss: float, norm: float, behind: Cursor) -> NoReturn:
        """End this attempt as ``train.on_nan`` says; ``behind`` is where the data goes on after the bad step."""
        self.backend.discard_window()
        self._settle()
        bad, back = self.step + 1, self.saver.newest_step
        text = f"step {bad}: loss {loss}, gradient norm {norm}; the step was not applied"
        self.reporter.record("alert", what="nan", text=text)
        if self.spec.train.on_nan == "rewind":
            if back is not None and self.supervised:
                self.reporter.record("rewind", step=back, cursor=behind.to_dict(), why=text)
                raise RestartRequested(
                    f"{text}; goes back to step {back} and skips the sequences up to those of step {bad}"
                )
            lacking = "there is no checkpoint yet" if back is None else "nobody restarts a run in the foreground"
            text += f"; no rewind: {lacking}"
        raise UserError(f"{text}; lower optim.lr and go on with --resume {checkpoint.latest(self.out) or 'latest'}")

    def _validate(self) -> None:
        if not self.spec.train.val_every:
            return
        total = 0.0
        tokens = sum(batch.shape[0] for batch in self.course.val_batches) * self.spec.batch.context
        for first in range(0, len(self.course.val_batches), self.ranks.size):
            for batch in self.course.val_batches[first + self.ranks.rank :][:1]:
                total += self.rescue.evaluated(batch)
            self._obey_at_once()
        self.val_loss = self.ranks.sum_over_ranks(total) / tokens
        self.reporter.record("val", step=self.step, loss=self.val_loss, bucket="val", tokens=tokens)

    # -- what a person asks

    def _obey(self) -> None:
        """Do everything that was asked; called between optimizer steps, where every command may be carried out."""
        self.course.repeat_edits(self._past, self.step)
        if self.course.repeat_rewinds(self._past, self.step):
            self.saver.saved_step = None  # a checkpoint of this step goes on with other sequences
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
                raise StopRequested(command)
            self.pause(f"asked by {command.by}", command.id)

    def pause(self, reason: str, id: str | None = None, patience: float | None = None) -> bool:
        """Hold the run until it is resumed. With ``patience`` (between two steps) an edit lets it go on too, and so
        does the end of that time: False then."""
        deadline = None if patience is None else time.monotonic() + patience
        self._settle()
        freed = self.ranks.sum_over_ranks(self.backend.offload_for_pause())
        # Below that nothing was freed that a person would see.
        told = f"{reason}; {freed / 1e9:.1f} GB of memory freed" if freed >= 5e7 else reason
        self._enter("paused", told, id)
        while True:
            # In the order they were given: pause, pause, resume goes on; pause, resume, pause holds.
            asked = self.orders.take("pause", "resume", "stop", *(("set",) if deadline else ()))
            if asked is None:
                if deadline and time.monotonic() > deadline and not self._reclaim():
                    self._enter("running", "nobody has answered")
                    return False
                time.sleep(PAUSE_POLL)
                self._hear()
                continue
            if asked.method == "stop":
                raise StopRequested(asked)
            if asked.method == "set" and not self._edit(asked):
                continue
            why = "was paused already" if asked.method == "pause" else self._reclaim()
            if not why:
                # An edit is acknowledged by its own record.
                self._enter("running", f"asked by {asked.by}", None if asked.method == "set" else asked.id)
                return True
            self._enter("paused", why, asked.id)

    def _reclaim(self) -> str:
        """Take back what a pause gave away; why it cannot be, on whichever rank, or nothing."""
        why = ""
        try:
            self.backend.restore_after_pause()
        except UserError as error:
            why = str(error)
        failed = self.ranks.sum_over_ranks(bool(why))
        return why or ("another rank has no room any more; resume again" if failed else "")

    def _edit(self, command: Command) -> bool:
        """Make the change; whether that could be done."""
        changes = command.params.get("changes")
        answer: dict[str, Any] = {"id": command.id, "step": self.step, "by": command.by}
        try:
            if not isinstance(changes, dict):
                raise UserError('set: write the changes as an object, for example {"micro": 4}')
            new = edited(self.spec, changes, unlock=command.params.get("unlock") is True)
            self._check_edit(new, force=command.params.get("force") is True)
        except UserError as error:
            self.reporter.record("edit", **answer, changed={}, ok=False, why=str(error))
            return False
        made = changed(self.spec, new)
        self.change(new, made, **answer, note="")
        self.rescue.recovery.edited(made)
        return True

    def change(self, new: RunSpec, made: dict[str, Any], note: str, **answer: Any) -> None:
        self.course.become(new)
        self.reporter.record("edit", **answer, changed=made, ok=True, why=note)
        self._past.supersede(made)
        self.keeper.changed(new)

    def _check_edit(self, new: RunSpec, force: bool) -> None:
        """Raises ``UserError``, the same on all ranks."""
        stop = new.train.stop_step
        if stop != self.spec.train.stop_step and 0 < stop < self.step:
            raise UserError(f"set stop_step: {stop} is behind the run, which is at step {self.step}; use a later one")
        validates = bool(new.train.val_every) and not self.spec.train.val_every
        if validates or new.batch.context != self.spec.batch.context:
            self.ranks.run_on_rank_zero(lambda: check_data(new))
        if not force:
            capacity = self.backend.capacity
            self.ranks.run_on_rank_zero(lambda: check_room(self.spec, new, detect_hardware(), capacity()))

    # -- checkpoints

    def _save(self, id: str | None = None) -> None:
        """Begin to write a checkpoint of this step. The run goes on, also where it cannot be written."""
        self._settle()
        tokenizer = Path(self.spec.data.root) / self.spec.data.phase / "tokenizer.json"
        self.saver.start_save(self.step, self.backend.state_dict, self._facts(), tokenizer, id)

    def save_now(self) -> str:
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
        waits, before = self.saver.pending and not self.saver.finished, self.phase
        if waits:
            self._enter("saving")
        why = self.saver.wait()
        if waits:
            self._enter(before)
        return why

    def _facts(self) -> dict[str, Any]:
        return {
            "spec": self.spec.to_dict(),
            "cursor": self.course.cursor.to_dict(),
            "tokens": self.course.cursor.tokens,
            "val_loss": self.val_loss,
            "versions": {"mla-tui": package_version(), **self.backend.versions},
        }

    def _restore(self, path: Path) -> None:
        state, facts = checkpoint.load(path)
        self.backend.load_state_dict(state)
        self.step = self.saver.newest_step = int(facts["step"])
        self.course.restore(Cursor.from_dict(facts["cursor"]), self._past, self.step)
        self.val_loss = facts.get("val_loss")
        self.saver.best = tuple(facts["best"]) if facts.get("best") else None
        if path.parent == self.out:  # else the run's own folder has nothing of it yet
            self.saver.saved_step = self.step
