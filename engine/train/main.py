"""A trainer process: under a run, or in the foreground."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.checkpoints import checkpoint
from engine.checkpoints.atomic_write import make_folder
from engine.events.commands import Command
from engine.events.exit_codes import EXIT_RETRY
from engine.events.log import Record
from engine.events.run_dir import RunDir
from engine.host.files import write_json, write_stderr
from engine.host.process import Lock, process_identity
from engine.preflight import check_checkpoint_folder, check_spec, resolve_spec
from engine.train.backends.ranks import Ranks, RankZeroError, join_ranks, local_world_size, world_size
from engine.train.edit_history import RestartRequested
from engine.train.reporter import Reporter, ShowReporter, SilentReporter
from profiles.errors import SpecError, UserError
from profiles.spec import RunSpec

if TYPE_CHECKING:
    from engine.train.loop import Trainer


_RANK_LOST = re.compile(r"gloo|NCCL|connection (closed|reset) by peer", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a trainer is to do; ``out`` is the folder of the run's checkpoints, ``supervised``: somebody restarts it."""

    spec: RunSpec
    out: Path
    resume: Path | None
    init_from: Path | None
    supervised: bool


def run_trainer(run: RunDir, attempt: int) -> int:
    """Rank 0 of ``run``; returns the process's exit status. Everything it has to say goes into the log."""
    early = _remember_sigterm()
    lock = Lock(run.trainer_lock)
    if not lock.acquire(timeout=0.5):
        write_stderr(f"{run.id}: another trainer holds the run")
        return EXIT_RETRY
    write_json(run.trainer_identity_path, {**process_identity(os.getpid()), "attempt": attempt})

    from engine.train.run_reporter import RunReporter

    reporter = RunReporter(run, attempt)

    def plan() -> Attempt:
        spec, start = run.spec(), run.start()
        out = Path(spec.train.out) / run.name
        # A restart goes on from the run's own newest checkpoint; the first attempt from what the person gave.
        own = checkpoint.intact(out, damaged) if attempt > 1 else None
        resume = own or (Path(start["resume"]) if start.get("resume") else None)
        init_from = Path(start["init_from"]) if start.get("init_from") else None
        return Attempt(spec, out, resume, init_from, supervised=True)

    def damaged(text: str) -> None:
        reporter.record("alert", what="checkpoint", text=text)

    def obey(trainer: Trainer) -> None:
        _stop_on_signals(trainer)
        if early:
            os.kill(os.getpid(), signal.SIGTERM)

    def body() -> None:
        if (world := world_size()) > 1:
            meeting = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
            reporter.record("state", phase="starting", reason=f"waiting for {world} ranks to meet at {meeting}")
        with joined() as ranks:
            train(ranks.run_on_rank_zero(plan), reporter, ranks, obey if ranks.size == 1 else _outlive_the_launcher)

    code, why = guarded(body)
    try:
        reporter.record("exit", code=code, signal=None, why=why)
        reporter.close()
    except OSError as error:
        write_stderr(f"events.jsonl: {error}")
    return code


def run_worker() -> int:
    """Any other rank of a run, on its machine or another: it is told by rank 0 what to do."""

    def body() -> None:
        with joined() as ranks:
            if ranks.rank == 0:
                raise UserError("--worker: is for all ranks but the first, which holds the run: mla-tui launch")
            train(ranks.run_on_rank_zero(_told), SilentReporter(), ranks, _outlive_the_launcher)

    code, why = guarded(body)
    if why:
        write_stderr(why)
    return code


def run_foreground(
    spec: RunSpec, name: str | None, resume: Path | None, init_from: Path | None, show: Callable[[Record], None]
) -> int:
    """Train here and now, rank 0 handing every record to ``show``; returns the exit status. Raises ``UserError``."""
    if (world := world_size()) > 1:
        spec = spec.on_ranks(world // local_world_size(), local_world_size())
    spec = resolve_spec(spec)
    out = Path(spec.train.out) / name if name else Path(spec.train.out)

    def plan() -> Attempt:
        check_spec(spec, out)
        check_checkpoint_folder(out, resume)
        return Attempt(spec, out, resume, init_from, supervised=False)

    def body() -> None:
        with joined() as ranks:
            reporter = SilentReporter() if ranks.rank else ShowReporter(show)
            train(ranks.run_on_rank_zero(plan), reporter, ranks, _stop_on_signals)

    code, why = guarded(body)
    if why:
        raise SpecError(why) if code == SpecError.exit_code else UserError(why)
    return code


def train(attempt: Attempt, reporter: Reporter, ranks: Ranks, obey_signals: Callable[[Trainer], None]) -> None:
    """One attempt on this rank, from nothing to its end. Raises ``UserError``."""
    from engine.train.backends.build import build_backend
    from engine.train.loop import Trainer

    launch = attempt.spec.launch
    if attempt.spec.ranks != ranks.size:
        raise UserError(
            f"launch: nodes = {launch.nodes} × gpus_per_node = {launch.gpus_per_node}, but {ranks.size} ranks were"
            " started; start as many, or change the profile"
        )
    backend = build_backend(attempt.spec, ranks)
    trainer = Trainer(attempt.spec, backend, reporter, attempt.out, ranks, attempt.supervised)
    with contextlib.ExitStack() as stack:
        ranks.run_on_rank_zero(lambda: stack.enter_context(_only_writer(attempt.out)))
        obey_signals(trainer)
        trainer.run(attempt.resume, attempt.init_from)


@contextlib.contextmanager
def joined() -> Iterator[Ranks]:
    """All ranks of this run, until they part."""
    ranks = join_ranks()
    try:
        yield ranks
    finally:
        ranks.close()


@contextlib.contextmanager
def _only_writer(out: Path) -> Iterator[None]:
    """Hold the folder of a run's checkpoints. Raises ``UserError`` where another run does."""
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    make_folder(out)
    lock = Lock(out / ".lock")
    if not lock.acquire(timeout=0.5):
        raise UserError(f"{out}: another run writes its checkpoints there; choose another --name or stop that run")
    try:
        yield
    finally:
        if not checkpoint.steps(out):  # nothing was saved: leave no empty folders behind
            lock.path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                for folder in made:
                    folder.rmdir()
        lock.release()


def _told() -> Attempt:
    raise AssertionError("rank 0 decides")


def guarded(body: Callable[[], None]) -> tuple[int, str]:
    """Run ``body``; ``(exit status, why)``. What a person can mend is 1, what a restart may mend is ``EXIT_RETRY``."""
    try:
        body()
    except RestartRequested as error:
        return EXIT_RETRY, str(error)
    except RankZeroError as error:
        return error.exit_code, ""
    except UserError as error:
        return error.exit_code, str(error)
    except BrokenPipeError:  # whoever read the lines of a foreground run has had enough
        raise
    except MemoryError as error:
        return 1, f"out of host memory: {error}; lower batch.micro"
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # torch's, without importing torch to name it
            return 1, f"out of device memory; lower batch.micro and go on with --resume latest ({_first_line(error)})"
        write_stderr(traceback.format_exc().rstrip())
        if world_size() > 1 and _RANK_LOST.search(str(error)):
            return EXIT_RETRY, "another rank has died or cannot be reached any more; what ended it stands in its output"
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):  # a compiler fails again
            return 1, f"train.compile: {_first_line(error)}; the traceback stands above; use -s train.compile=off"
        return EXIT_RETRY, f"{type(error).__name__}: {_first_line(error)}; the traceback stands above"
    return 0, ""


def _remember_sigterm() -> list[int]:
    """SIGTERM while torch is imported and the model made: remembered, where it would be the end without a word.

    Ranks that a launcher started die of it, as their launcher expects.
    """
    asked: list[int] = []
    if world_size() == 1:
        signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    return asked


def _stop_on_signals(trainer: Trainer) -> None:
    """SIGTERM and Ctrl-C mean: checkpoint, then end."""

    def ask(number: int, _: object) -> None:
        name = signal.Signals(number).name
        trainer.commands.put(Command(id=f"{name}-{os.getpid()}", method="stop", params={"save": True}, by=name))

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)


def _outlive_the_launcher(trainer: Trainer) -> None:
    """A launcher sends SIGTERM when another rank has died: no wish to stop, and the next sum fails anyway. What a
    person wants comes as a command."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else ""
