"""A trainer process: under a job, or in the foreground."""

from __future__ import annotations

import contextlib
import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from engine.jobs.commands import Command
from engine.jobs.files import complain, write_json
from engine.jobs.log import Record
from engine.jobs.process import Lock, identity
from engine.jobs.store import Job
from engine.jobs.supervisor import EXIT_RETRY
from engine.preflight import check, check_history, resolved
from engine.train import checkpoint
from engine.train.reporter import Reporter, ShowReporter
from profiles.errors import UserError
from profiles.spec import RunSpec

if TYPE_CHECKING:
    from engine.train.loop import Trainer


def run_job(job: Job, attempt: int) -> int:
    """The trainer of ``job``; returns the process's exit status. Everything it has to say goes into the log."""
    lock = Lock(job.trainer_lock)
    if not lock.acquire(patience=0.5):
        complain(f"{job.id}: another trainer holds the job")
        return EXIT_RETRY
    write_json(job.trainer_who, identity(os.getpid()))

    from engine.jobs.reporter import JobReporter

    reporter = JobReporter(job, attempt)

    def body() -> None:
        spec, start = job.spec(), job.start()
        out = Path(spec.train.out) / job.name
        # A restart goes on from the run's own newest checkpoint; the first attempt from what the person gave.
        own = checkpoint.latest(out) if attempt > 1 else None
        resume = own or (Path(start["resume"]) if start.get("resume") else None)
        init_from = Path(start["init_from"]) if start.get("init_from") else None
        train(spec, reporter, out, resume, init_from)

    code, why = guarded(body)
    try:
        reporter.record("exit", code=code, signal=None, why=why)
        reporter.close()
    except OSError as error:
        complain(f"events.jsonl: {error}")
    return code


def run_foreground(
    spec: RunSpec, name: str | None, resume: Path | None, init_from: Path | None, show: Callable[[Record], None]
) -> int:
    """Train here and now, handing every record to ``show``; returns the exit status. Raises ``UserError``."""
    world = os.environ.get("WORLD_SIZE", "1")
    if world != "1":
        raise UserError(f"WORLD_SIZE={world}: several ranks are not part of this version; start one process")
    spec = resolved(spec)
    out = Path(spec.train.out) / name if name else Path(spec.train.out)
    check(spec, out)
    check_history(out, resume)
    code, why = guarded(lambda: train(spec, ShowReporter(show), out, resume, init_from))
    if code:
        raise UserError(why)
    return 0


def train(spec: RunSpec, reporter: Reporter, out: Path, resume: Path | None, init_from: Path | None) -> None:
    """One attempt, from nothing to its end. Raises ``UserError``."""
    from engine.train.loop import Trainer
    from engine.train.torch_backend import TorchBackend

    backend = TorchBackend(spec)
    trainer = Trainer(spec, backend, reporter, out)
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    out.mkdir(parents=True, exist_ok=True)
    lock = Lock(out / ".lock")
    if not lock.acquire(patience=0.5):
        raise UserError(f"{out}: another run writes its checkpoints there; choose another --name or stop that run")
    try:
        _stop_on_signals(trainer)
        trainer.run(resume, init_from)
    finally:
        if not checkpoint.steps(out):  # nothing was saved: leave no empty folders behind
            lock.path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                for folder in made:
                    folder.rmdir()
        lock.release()


def guarded(body: Callable[[], None]) -> tuple[int, str]:
    """Run ``body``; ``(exit status, why)``. What a person can mend is 1, what a restart may mend is ``EXIT_RETRY``."""
    try:
        body()
    except UserError as error:
        return error.exit_code, str(error)
    except BrokenPipeError:  # whoever read the lines of a foreground run has had enough
        raise
    except MemoryError as error:
        return 1, f"out of host memory: {error}; lower batch.micro"
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # torch's, without importing torch to name it
            return 1, f"out of device memory; lower batch.micro and go on with --resume latest ({_first_line(error)})"
        complain(traceback.format_exc().rstrip())
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):  # a compiler fails again
            return 1, f"train.compile: {_first_line(error)}; the traceback stands above; use -s train.compile=off"
        return EXIT_RETRY, f"{type(error).__name__}: {_first_line(error)}; the traceback stands above"
    return 0, ""


def _stop_on_signals(trainer: Trainer) -> None:
    """SIGTERM and Ctrl-C mean: checkpoint, then end."""

    def ask(number: int, _: object) -> None:
        name = signal.Signals(number).name
        trainer.ask(Command(id=f"{name}-{os.getpid()}", method="stop", params={"save": True}, by=name))

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else ""
