"""Trains a run from its first step to its last: steps, validation, checkpoints, and commands in between.

Each step is done by the step runner, which returns what came of it. The loop acts on that: it records a finished step,
asks the out-of-memory handler what to do about an error and applies the answer, ends a run whose loss is not finite.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NoReturn

from data.cursor import Cursor
from data.fingerprint import Fingerprint
from data.splits import tokenizer_of
from engine.checkpoints import checkpoint
from engine.events.commands import requested
from engine.events.phases import COMPILING, FINISHED, PAUSED, RUNNING, SAVING, STARTING, STOPPED, STOPPING
from engine.events.requests import CheckpointRequest, PauseRequest, ResumeRequest, SetRequest, StopRequest
from engine.events.types import Command, Data, Edit, Progress, State
from engine.host.version import VERSION
from engine.memory.hardware import cpu_name, detect_hardware
from engine.train.backends.backend import Backend
from engine.train.backends.ranks import Ranks, SingleRank
from engine.train.checkpoint_saver import CheckpointSaver
from engine.train.command_queue import CommandQueue, StopRequested
from engine.train.continue_command import continue_command
from engine.train.edit_history import EditHistory, RestartRequested
from engine.train.edit_request import requested_spec
from engine.train.edits import changed
from engine.train.evaluation.evaluator import Evaluator
from engine.train.logit_monitor import LogitMonitor
from engine.train.measure.device_peak import device_peak
from engine.train.models import pretrained
from engine.train.not_finite import not_finite_error
from engine.train.oom.handler import AskUser, ChangeMicro, Decision, GiveUp, OomHandler
from engine.train.oom.markers import write_marker
from engine.train.oom.memory_monitor import MemoryMonitor
from engine.train.oom.micro_fitter import BY
from engine.train.oom.recognize import OutOfMemory, OutOfMemoryFailure
from engine.train.pause_memory import PauseMemory
from engine.train.rank_monitor import RankMonitor
from engine.train.reporter import Reporter
from engine.train.run_state import RunState
from engine.train.samples import Sampler
from engine.train.spec_record import spec_record
from engine.train.start_record import start_alerts, start_record
from engine.train.step_record import step_record
from engine.train.step_runner import Done, MicroBatchDone, NotFinite, StepRunner
from engine.train.timed_work import TimedWork
from engine.train.validation import Validator
from profiles.errors import UserError
from profiles.spec import RunSpec

PAUSE_POLL = 0.1  # seconds


class Trainer:
    """One attempt at one run, with the id ``run``; in the foreground it has none.

    Each rank has one, and all do the same: what one of them alone can know, such as a command, rank 0 decides.
    """

    def __init__(
        self,
        state: RunState,
        backend: Backend,
        reporter: Reporter,
        out: Path,
        ranks: Ranks | None = None,
        run: str = "",
    ) -> None:
        self.state, self.backend, self.reporter, self.out = state, backend, reporter, out
        state.settle_precision(backend.plan["precision"])
        self.ranks, self.supervised = ranks or SingleRank(), bool(run)
        self.step = 0
        self.val_loss: float | None = None
        self.phase = STARTING
        self.commands = CommandQueue(reporter, self.ranks)
        self.saver = CheckpointSaver(out, state.spec.train, reporter, self.ranks, run)
        hardware = detect_hardware(state.spec.launch.gpus_per_node)
        self.memory = MemoryMonitor(backend, reporter, hardware)
        self.rank_monitor = RankMonitor(self.ranks, reporter)
        self.device = cpu_name() if backend.device == "cpu" else hardware.name
        self.peak = device_peak(self.device, backend.device, backend.plan["precision"])
        self.oom = OomHandler(backend, self.memory, hardware, self.ranks, out)
        logits = LogitMonitor(backend, reporter, self.ranks.rank)
        self.runner = StepRunner(
            backend, state, self.ranks, self._between_micro_batches, self._finish_checkpoint, logits
        )
        self.validator = Validator(backend, self.state, self.ranks, self.oom, self._process_urgent_commands)
        self.timed_work = TimedWork(backend, state, self.ranks, reporter, hardware, self._process_urgent_commands)
        self.evaluator = Evaluator(backend, state, hardware, self.timed_work)
        self.sampler = Sampler(backend, state, hardware, self.timed_work)
        self._pause_memory = PauseMemory(backend, self.ranks)
        self._history = EditHistory.of([])
        self._versions = {"mla-tui": VERSION, **backend.versions}

    @property
    def spec(self) -> RunSpec:
        """The spec with the edits made so far."""
        return self.state.spec

    # -- from the first step to the last

    def run(self, resume: Path | None, init_from: Path | None, old_data: Fingerprint | None = None) -> str:
        """Train until the last step or a stop; return the phase the run ended in. Raises ``UserError``.

        ``old_data``: the data that the checkpoint ``resume`` was trained on, if it is not that of this run.
        """
        try:
            return self._run(resume, init_from, old_data)
        finally:
            self.state.close()
            self.saver.close()

    def _run(self, resume: Path | None, init_from: Path | None, old_data: Fingerprint | None) -> str:
        self._begin(resume, init_from, old_data)
        try:
            if self._history.paused:
                self._pause("was paused when the attempt before it ended")
            self._answer_earlier_oom()
            if self.step == 0:
                self.evaluator.check()
                self._validate()
            while self.step < self.spec.train.last_step:
                self._process_commands()
                if self.step == self.spec.train.last_step:  # asked to end with the step just done
                    break
                self._train_step()
                cadence = self.spec.train
                if cadence.val_every and self.step % cadence.val_every == 0:
                    self._validate()
                self.evaluator.run(self.step)  # before the checkpoint, which may be the best by it
                if cadence.save_every and self.step % cadence.save_every == 0:
                    self._begin_checkpoint()
                if cadence.sample_every and self.step % cadence.sample_every == 0:
                    self.sampler.run(self.step)
                if self.step == self.spec.train.last_step:  # here too, for a command may move the last step
                    self._process_commands()
            if self.spec.train.val_every and self.step % self.spec.train.val_every:
                self._validate()
        except StopRequested as stop:
            self.backend.discard_window()
            self._enter(STOPPING, requested(stop.by), stop.id)
            why = self._save() if stop.save else self._finish_checkpoint()
            self._enter(STOPPED, requested(stop.by) + (f"; no checkpoint: {why}" if why else ""))
            return STOPPED
        if why := self._save():
            go_on = continue_command(self.out)
            raise UserError(f"the last checkpoint could not be written: {why}; make room and {go_on}")
        if self.step < self.spec.train.steps:
            self._enter(STOPPED, f"reached stop_step = {self.step}")
            return STOPPED
        self._enter(FINISHED)
        return FINISHED

    def _enter(self, phase: str, reason: str = "", id: str | None = None) -> None:
        self.phase = phase
        self.reporter.record(State(id=id, phase=phase, reason=reason))

    def _begin(self, resume: Path | None, init_from: Path | None, old_data: Fingerprint | None) -> None:
        self._history = EditHistory.of(self.ranks.run_on_rank_zero(self.reporter.events_to_replay))
        if resume is not None:
            self._restore(resume)
        elif init_from is not None:
            self.backend.load_weights(pretrained.load_weights(init_from))
        self.state.replay_edits(self._history, self.step)
        if old_data:
            self.state.continue_from(old_data)
        data = Data(self.state.data.digest, old_data is not None)
        self._history.put_start(self.step, data)
        self._history.drop_rewinds_before(self.step)
        self.oom.learn(self._history.memory)
        start = start_record(self.step, self.backend, self.spec, self.device, self.peak, self._versions, data)
        self.reporter.record(start)
        self._record_spec()
        for alert in start_alerts(self.spec, self.backend, self.ranks.run_on_rank_zero(self.state.miscounts)):
            self.reporter.record(alert)
        self.memory.record_forecast(self.spec)
        self._enter(RUNNING if self.backend.plan["compile"] == "off" else COMPILING)

    # -- one optimizer step

    def _train_step(self) -> None:
        while isinstance(result := self.runner.run(self.step + 1), OutOfMemory):
            self._recover(result)
        if isinstance(result, NotFinite):
            self._end_not_finite(result)
        self._record_step(result)
        if growth := self.oom.growth(self.spec):
            self._apply(growth, self.spec)

    def _between_micro_batches(self, progress: MicroBatchDone) -> None:
        self._process_urgent_commands()
        self.reporter.progress(
            Progress(step=self.step + 1, micro_done=progress.done, micro_of=progress.total, tok_s=progress.tok_s)
        )

    def _record_step(self, done: Done) -> None:
        self.step += 1
        self.state.cursor = done.cursor
        unified = self.backend.unified_memory()  # before the peak, whose reading begins a new one
        peak = self.backend.device_peak()
        host_states = self.backend.host_states()
        self.reporter.record(step_record(self.step, done, self.spec, self.peak, peak, host_states, unified))
        self.memory.record_step(self.spec, self.step, peak)
        self.rank_monitor.record_step(self.spec, self.step, done, peak)
        self.oom.record_step(self.spec, peak)
        if self.phase == COMPILING:  # the first step has met every graph a step needs
            self._enter(RUNNING)

    def _end_not_finite(self, result: NotFinite) -> NoReturn:
        self.backend.discard_window()
        self._finish_checkpoint()
        newest, on_nan = self.saver.newest_step, self.spec.train.on_nan
        raise not_finite_error(result, self.step + 1, newest, on_nan, self.supervised, self.out, self.reporter)

    def _validate(self) -> None:
        if not self.spec.train.val_every:
            return
        found = self.validator.run()
        self.val_loss = found.loss
        self.reporter.record(found.to_record(self.step))

    # -- out of memory

    def _recover(self, failure: OutOfMemory) -> None:
        """Free memory and apply what the handler decides, so that the step can be done again; or end this attempt."""
        if self.ranks.rank:
            write_marker(self.out, failure, self.ranks.rank, self.spec.batch.micro)
            raise RestartRequested(f"out of memory in {failure.where} on rank {self.ranks.rank}: {failure.text}")
        retry = self.oom.can_retry(failure)
        if retry:
            self.backend.discard_window()
        self.backend.empty_cache()
        self._apply(self.oom.decide(failure, self.spec), self.spec)
        if retry:
            return
        if self.oom.can_save(failure) and self.step:
            self._save()
        raise RestartRequested(f"out of memory in {failure.where}")

    def _answer_earlier_oom(self) -> None:
        """Act on what ended an earlier attempt unanswered: the kernel's kill, another rank's out-of-memory error."""
        if unanswered := self.oom.unanswered(self._history, self.spec):
            self._apply(self.oom.decide(*unanswered), unanswered[1])

    def _apply(self, decision: Decision, before: RunSpec) -> None:
        """Do what was decided about a spec: that of the run, or the one with which an earlier attempt failed."""
        match decision:
            case GiveUp():
                raise OutOfMemoryFailure(decision.error)
            case AskUser():
                if not self._pause(decision.reason, timeout=decision.timeout):
                    self._apply(decision.otherwise, before)
            case ChangeMicro():
                new = self.spec.with_batch(micro=decision.micro)
                self._change(new, changed(before, new), BY, decision.why)

    # -- commands

    def _process_commands(self) -> None:
        """Carry out every command; called between optimizer steps, where all of them may be."""
        if self.state.replay_edits(self._history, self.step):
            self._record_spec()
        if self.state.replay_rewinds(self._history, self.step):
            self.saver.saved_step = None  # a checkpoint of this step goes on with other sequences
        self._poll()
        while (command := self.commands.pop()) is not None:
            match command.request:
                case SetRequest() as request:
                    self._edit(command, request)
                case CheckpointRequest():
                    self._begin_checkpoint(command.id)
                case _:
                    self._carry_out(command)

    def _process_urgent_commands(self) -> None:
        """Carry out what does not wait for the end of a step; called between micro-batches."""
        self._poll()
        while (command := self.commands.pop_urgent()) is not None:
            self._carry_out(command)

    def _carry_out(self, command: Command) -> None:
        match command.request:
            case StopRequest(save=save):
                raise StopRequested(command.id, save, command.by)
            case ResumeRequest():
                self._enter(self.phase, "was not paused", command.id)
            case PauseRequest():
                self._pause(requested(command.by), command.id)

    def _poll(self) -> None:
        """Queue the commands received since the last call; finish a checkpoint that has been written meanwhile."""
        if self.commands.poll(lambda: self.saver.finished):
            self._finish_checkpoint()

    def _pause(self, reason: str, id: str | None = None, timeout: float | None = None) -> bool:
        """Hold the run until it is resumed.

        With ``timeout`` (between two steps) an edit resumes it too, and so does the end of that time: False then.
        """
        self._finish_checkpoint()
        with self.state.clock.stopped():
            self._enter(PAUSED, reason + self._pause_memory.release(), id)
            return self._wait_for_answer(None if timeout is None else time.monotonic() + timeout)

    def _wait_for_answer(self, deadline: float | None) -> bool:
        answers = (PauseRequest, ResumeRequest, StopRequest, *((SetRequest,) if deadline else ()))
        while True:
            # In the order given: pause, pause, resume goes on; pause, resume, pause holds.
            command = self.commands.pop(*answers)
            if command is None:
                if deadline and time.monotonic() > deadline and not self._pause_memory.reclaim():
                    self._enter(RUNNING, "there was no answer in time")
                    return False
                time.sleep(PAUSE_POLL)
                self._poll()
                continue
            request = command.request
            if isinstance(request, StopRequest):
                raise StopRequested(command.id, request.save, command.by)
            if isinstance(request, SetRequest) and not self._edit(command, request):
                continue
            why = "was paused already" if isinstance(request, PauseRequest) else self._pause_memory.reclaim()
            if not why:
                # An edit is acknowledged by its own record.
                self._enter(RUNNING, requested(command.by), None if isinstance(request, SetRequest) else command.id)
                return True
            self._enter(PAUSED, why, command.id)

    def _edit(self, command: Command, request: SetRequest) -> bool:
        """Make the edit that ``command`` asks for; return whether it could be made."""
        try:
            new = requested_spec(request, self.spec, self.step, self.backend, self.ranks)
        except UserError as error:
            self.reporter.record(
                Edit(id=command.id, ok=False, changed={}, step=self.step, by=command.by, why=str(error))
            )
            return False
        made = changed(self.spec, new)
        self._change(new, made, command.by, id=command.id)
        self.oom.record_edit(made)
        return True

    def _change(
        self, new: RunSpec, made: dict[str, tuple[Any, Any]], by: str, why: str = "", id: str | None = None
    ) -> None:
        """Become ``new`` and log that as an edit."""
        self.state.set_spec(new)
        self.reporter.record(Edit(id=id, ok=True, changed=made, step=self.step, by=by, why=why))
        self._history.supersede(made)
        self._record_spec()
        self.memory.record_forecast(new)

    def _record_spec(self) -> None:
        """Log every value that an edit can change, as it is from the next step on and will be."""
        self.reporter.record(spec_record(self.step, self.spec, self._history.edits))

    # -- checkpoints

    def _begin_checkpoint(self, id: str | None = None) -> None:
        """Begin to write a checkpoint of this step. The run goes on, also where it cannot be written."""
        self._finish_checkpoint()
        facts = {**self.state.to_facts(), "val_loss": self.val_loss, "versions": self._versions}
        facts["eval_acc"] = self.evaluator.accuracy
        self.saver.start_save(self.step, self.backend.state_dict, facts, tokenizer_of(self.spec), id)

    def _save(self) -> str:
        """Write a checkpoint of this step; return why it could not be written, or nothing."""
        self._finish_checkpoint()
        if self.saver.is_saved(self.step):
            return ""
        self._begin_checkpoint()
        return self._finish_checkpoint()

    def _finish_checkpoint(self) -> str:
        """Wait for the checkpoint that is being written, if one is; return why it could not be, or nothing.

        Only this waiting is the phase ``saving``: a run whose checkpoint is written behind it is running.
        """
        waits, before = self.saver.pending and not self.saver.finished, self.phase
        if waits:
            self._enter(SAVING)
        why = self.saver.wait()
        if waits:
            self._enter(before)
        return why

    def _restore(self, path: Path) -> None:
        state, facts = checkpoint.load(path)
        self.backend.load_state_dict(state)
        self.step = int(facts["step"])
        self.saver.resume(path, self.step, facts)
        self.state.restore(Cursor.from_dict(facts.get("cursor")), self._history, self.step)
        self.val_loss, self.evaluator.accuracy = facts.get("val_loss"), facts.get("eval_acc")
