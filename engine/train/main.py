"""Runs one attempt of a run in this process: under a supervisor, as a further rank, or in the foreground."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from engine.checkpoints import checkpoint
from engine.checkpoints.atomic_write import make_dirs
from engine.checkpoints.ownership import checkpoints_of
from engine.checkpoints.resume_source import check_same_data, missing_source
from engine.events.exit_codes import EXIT_NEEDS_ATTENTION, EXIT_RETRY
from engine.events.phases import STARTING
from engine.events.requests import StopRequest
from engine.events.run_dir import RunDir
from engine.events.types import Alert, Command, Event, Exit, State
from engine.host.files import write_stderr
from engine.host.held_files import held
from engine.host.process import Lock, is_alive, process_identity
from engine.host.struct_json import write_struct
from engine.memory.search.choose import keep_choices, open_keys
from engine.preflight import check_checkpoint_folder, check_spec, resolve_spec
from engine.train.backends.cuda_environment import prepare_cuda
from engine.train.backends.ranks import Ranks, RankZeroError, join_ranks, local_world_size, world_size
from engine.train.backends.thread_environment import thread_environment
from engine.train.checkpoint_check import check_source_on_all_ranks
from engine.train.data_check import check_data_is_there, check_data_of_run, check_same_on_all_ranks
from engine.train.edit_history import RestartRequested
from engine.train.oom.recognize import recognize, requested
from engine.train.phases import IDLE
from engine.train.reporter import Reporter, ShowReporter, SilentReporter
from profiles.errors import NeedsAttentionError, SpecError, UserError
from profiles.names import check_name
from profiles.spec import RunSpec

if TYPE_CHECKING:
    from data.fingerprint import Fingerprint
    from engine.train.loop import Trainer


_RANK_LOST = re.compile(r"gloo|NCCL|connection (closed|reset) by peer", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What to train. ``out``: the folder of the run's checkpoints; ``run``: its id, empty in the foreground."""

    spec: RunSpec
    out: Path
    resume: Path | None
    init_from: Path | None
    run: str


def run_trainer(run: RunDir, attempt: int) -> int:
    """Train as rank 0 of ``run``; return the exit status. Errors go into the log."""
    early_sigterm = _defer_sigterm()
    identity = process_identity(os.getpid(), attempt)
    lock = Lock(run.trainer_lock, f"{identity}")
    try:
        # Its lock may have been deleted, and not be made again yet.
        if is_alive(run.trainer_identity()) or not lock.acquire(timeout=0.5):
            write_stderr(f"{run.id}: another trainer is running")
            return EXIT_RETRY
        write_struct(run.trainer_identity_path, identity)
    except OSError as error:  # a full disk: the supervisor waits for space before it restarts the run
        write_stderr(f"{run.id}: {error}")
        return EXIT_RETRY

    def keep_identity() -> None:
        if run.trainer_identity() != identity:
            write_struct(run.trainer_identity_path, identity)

    with held(lock.hold, keep_identity):
        return _run_attempt(run, attempt, early_sigterm)


def _run_attempt(run: RunDir, attempt: int, early_sigterm: list[int]) -> int:
    from engine.train.run_reporter import RunReporter

    try:
        reporter = RunReporter(run, attempt)
    except OSError as error:
        write_stderr(f"{run.id}: {error}")
        return EXIT_RETRY

    def plan() -> Attempt:
        try:
            spec, launch = run.spec(), run.launch()
        except UserError as error:  # damaged since the supervisor read it, which writes it again before a restart
            raise RestartRequested(str(error)) from None
        out = Path(spec.train.out) / run.name
        saved = run.current_state().checkpoint if attempt > 1 else None
        steps = checkpoints_of(run).steps if attempt > 1 else []
        lost = saved is not None and Path(saved).name not in {f"ckpt_step_{step}" for step in steps}
        # A restart resumes from the run's own newest checkpoint; the first attempt from what the user gave.
        own = checkpoint.newest_intact(out, report_damage, steps)
        if own and lost:
            report_damage(f"{saved}: is missing; the run resumes from {own.name}")
        # The supervisor waits for a missing folder; this is for one that has vanished since it looked.
        if attempt > 1 and own is None and (missing := missing_source(run, saved)):
            raise RestartRequested(missing)
        if attempt > 1:
            check_data_is_there(spec)
        resume = own or (Path(launch.resume) if launch.resume else None)
        init_from = Path(launch.init_from) if launch.init_from else None
        return Attempt(_as_begun(spec, resume), out, resume, init_from, run.id)

    def report_damage(text: str) -> None:
        reporter.record(Alert(what="checkpoint", text=text))

    def handle_signals(trainer: Trainer) -> None:
        _stop_on_signals(trainer)
        if early_sigterm:
            os.kill(os.getpid(), signal.SIGTERM)

    def body() -> None:
        if (world := world_size()) > 1:
            address = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
            reporter.record(State(phase=STARTING, reason=f"waiting for {world} ranks to meet at {address}"))
        with joined() as ranks:
            handle = handle_signals if ranks.size == 1 else _ignore_sigterm
            train(ranks.run_on_rank_zero(plan), reporter, ranks, handle, lambda *data: check_data_of_run(run, *data))

    code, why = exit_status_of(body)
    try:
        reporter.record(Exit(code=code, why=why))
        reporter.close()
    except OSError as error:
        write_stderr(f"events.jsonl: {error}; not logged: exit code {code} {why}".rstrip())
    return code


def run_worker() -> int:
    """Train as any other rank of a run, on this machine or another; rank 0 says what. Return the exit status."""

    def body() -> None:
        with joined() as ranks:
            if ranks.rank == 0:
                raise UserError("--worker: is for all ranks but the first, which holds the run: mla-tui launch")
            attempt: Attempt = ranks.run_on_rank_zero(_only_on_rank_zero)
            train(attempt, SilentReporter(), ranks, _ignore_sigterm, _only_on_rank_zero)

    code, why = exit_status_of(body)
    if why:
        write_stderr(why)
    return code


def run_foreground(
    spec: RunSpec,
    name: str | None,
    resume: Path | None,
    init_from: Path | None,
    show: Callable[[Event], None],
    check: Callable[[RunSpec], None],
    data_changed: bool = False,
) -> int:
    """Train in this process; rank 0 gives every event to ``show``. Return the exit status. Raises ``UserError``.

    ``check``: a further check of the resolved spec, made on rank 0. With ``data_changed`` the data may be other than
    that of the checkpoint ``resume``.
    """
    if (world := world_size()) > 1:
        spec = spec.on_ranks(world // local_world_size(), local_world_size())
    spec = resolve_spec(spec)
    out = Path(spec.train.out) / (check_name("--name", name) if name is not None else "")

    def plan() -> Attempt:
        check_spec(spec, out)
        check_checkpoint_folder(out, resume)
        check(spec)
        return Attempt(_as_begun(spec, resume), out, resume, init_from, run="")

    def check_data(now: Fingerprint, resume: Path | None) -> Fingerprint | None:
        return check_same_data(now, resume, data_changed) if resume else None

    def body() -> None:
        with joined() as ranks:
            reporter = SilentReporter() if ranks.rank else ShowReporter(show)
            train(ranks.run_on_rank_zero(plan), reporter, ranks, _stop_with_terminal, check_data)

    code, why = exit_status_of(body)
    if why:
        raise SpecError(why) if code == SpecError.exit_code else UserError(why)
    return code


def _as_begun(spec: RunSpec, resume: Path | None) -> RunSpec:
    """Return ``spec`` in the precision of the checkpoint ``resume``, where only a trainer could choose one."""
    return keep_choices(spec, checkpoint.spec_of(resume)) if resume and open_keys(spec) else spec


def train(
    attempt: Attempt,
    reporter: Reporter,
    ranks: Ranks,
    handle_signals: Callable[[Trainer], None],
    check_data: Callable[[Fingerprint, Path | None], Fingerprint | None],
) -> None:
    """Build backend and trainer and run ``attempt`` on this rank to its end. Raises ``UserError``.

    Rank 0 calls ``check_data``, which returns the data of its checkpoint if the run goes on with other data.
    """
    from engine.train.backends.build import build_backend
    from engine.train.loop import Trainer
    from engine.train.run_state import RunState

    launch = attempt.spec.launch
    if attempt.spec.ranks != ranks.size:
        raise UserError(
            f"launch: nodes = {launch.nodes} × gpus_per_node = {launch.gpus_per_node}, but {ranks.size} ranks were"
            " started; start as many, or change the profile"
        )
    state = RunState(attempt.spec)
    check_same_on_all_ranks(state.data, ranks)
    check_source_on_all_ranks(attempt.resume or attempt.init_from, ranks)
    old_data = ranks.run_on_rank_zero(lambda: check_data(state.data, attempt.resume))
    if launch.backend == "deepspeed":
        _report_build(reporter)
    backend = build_backend(attempt.spec, ranks, state.document_end)
    trainer = Trainer(state, backend, reporter, attempt.out, ranks, attempt.run)
    with contextlib.ExitStack() as stack:
        ranks.run_on_rank_zero(lambda: stack.enter_context(_only_writer(attempt.out)))
        handle_signals(trainer)
        trainer.run(attempt.resume, attempt.init_from, old_data)


def _report_build(reporter: Reporter) -> None:
    from engine.train.backends import cpu_adam

    if not cpu_adam.is_built():
        reporter.record(State(phase=STARTING, reason="compiling DeepSpeed's optimizer, once on this machine"))


@contextlib.contextmanager
def joined() -> Iterator[Ranks]:
    """Join the ranks of this run, and leave them at the end."""
    prepare_cuda()
    os.environ.update(thread_environment())
    ranks = join_ranks()
    try:
        yield ranks
    finally:
        ranks.close()


@contextlib.contextmanager
def _only_writer(out: Path) -> Iterator[None]:
    """Lock the folder of a run's checkpoints. Raises ``UserError`` where another run has locked it."""
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    make_dirs(out)
    lock = Lock(out / ".lock")
    if not lock.acquire(timeout=0.5):
        raise UserError(f"{out}: another run writes its checkpoints there; choose another --name or stop that run")
    try:
        with held(lock.hold):
            yield
    finally:
        if not checkpoint.steps(out):  # nothing was saved: leave no empty folders behind
            with contextlib.suppress(OSError):
                lock.path.unlink(missing_ok=True)
                for folder in made:
                    folder.rmdir()
        lock.release()


def _only_on_rank_zero(*_: object) -> NoReturn:
    raise AssertionError("rank 0 decides")


def exit_status_of(body: Callable[[], None]) -> tuple[int, str]:
    """Run ``body``; return ``(exit status, why)``: 1 if the user has to fix it, ``EXIT_RETRY`` if a restart may."""
    try:
        body()
    except RestartRequested as error:
        return EXIT_RETRY, str(error)
    except NeedsAttentionError as error:
        return EXIT_NEEDS_ATTENTION, str(error)
    except RankZeroError as error:
        return error.exit_code, ""
    except UserError as error:
        return error.exit_code, str(error)
    except BrokenPipeError:  # the reader of what a foreground run prints before its first step is gone
        raise
    except Exception as error:
        if (failure := recognize(error, IDLE)) is not None:  # not in a step: a smaller micro would not help
            write_stderr(f"out of memory: {failure.text}")
            return 1, f"out of memory outside a step{requested(failure)}; mla-tui plan shows what would fit"
        write_stderr(traceback.format_exc().rstrip())
        if world_size() > 1 and _RANK_LOST.search(str(error)):
            return EXIT_RETRY, "another rank has died or cannot be reached any more; its own output says why"
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):  # a compiler fails again
            return 1, f"train.compile: {_first_line(error)}; the traceback is above; use -s train.compile=off"
        return EXIT_RETRY, f"{type(error).__name__}: {_first_line(error)}; the traceback is above"
    return 0, ""


def _defer_sigterm() -> list[int]:
    """Remember a SIGTERM that arrives before the trainer can handle it, while torch is imported and the model built.

    Ranks that a launcher started die of it, as their launcher expects.
    """
    received: list[int] = []
    if world_size() == 1:
        signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    return received


def _stop_on_signals(trainer: Trainer, *more: signal.Signals) -> None:
    """On SIGTERM, Ctrl-C and the signals ``more`` save a checkpoint, then end."""

    def request_stop(number: int, _: object) -> None:
        name = signal.Signals(number).name
        trainer.commands.put(Command(id=f"{name}-{os.getpid()}", request=StopRequest(), by=name))

    for each in (signal.SIGTERM, signal.SIGINT, *more):
        signal.signal(each, request_stop)


def _stop_with_terminal(trainer: Trainer) -> None:
    """As above, and when the terminal is closed, unless ``nohup`` says that the run outlives it."""
    _stop_on_signals(trainer, *([] if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else [signal.SIGHUP]))


def _ignore_sigterm(trainer: Trainer) -> None:
    """A launcher sends SIGTERM when another rank has died: the next collective fails anyway and all ranks restart.

    A user's stop comes as a command."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else ""
