"""Runs of a very small model, started as users start them: by the ``mla-tui`` command, each test in its own home.

Every process of a test inherits that home in its environment. By it a test finds all its processes at its end, whoever
started them.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

import numpy as np
import psutil
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from engine.events.log import LogWriter, read_all
from engine.events.run_dir import RunDir
from engine.events.status import Launch, RunStatus
from engine.events.types import Start, State, Step
from engine.host.process import ProcessIdentity, boot_id, host_name, is_alive, start_ticks
from engine.preflight import resolve_spec
from engine.runs.store import RunStore
from profiles.registry import load
from scripts.tmux_session import TmuxSession
from tests.events import all_fields

MLA_TUI = Path(sys.executable).parent / "mla-tui"
DEADLINE = 90.0  # seconds; nothing here should need as long, not even on a busy machine
STEPS = 240
LOSS = r"loss \d+\.\d+ · steps 1–(\d+) \((\d+)\)"  # on the monitor
VOCABULARY = 256
PROFILE: dict[str, dict[str, Any]] = {
    "model": {
        **{"name": "test-nano", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
        **{"qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 16, "kv_lora_rank": 16},
        **{"intermediate_size": 64, "vocab_size": VOCABULARY},
    },
    "batch": {"sequences": 8, "micro": 4, "context": 32},
    "train": {
        **{"steps": STEPS, "precision": "fp32", "compile": "off", "deterministic": True},
        **{"val_every": 50, "val_sequences": 8, "save_every": 40, "keep": 2},
    },
    "optim": {"lr": 3e-3, "warmup": 20, "final_lr": 3e-4},
    "memory": {"strategy": "auto", "checkpointing": "none", "loss": "plain"},
}
Record = dict[str, Any]
T = TypeVar("T")


def wait_for(what: str, poll: Callable[[], T | None], timeout: float = DEADLINE) -> T:
    """Return the first true value of ``poll``; the test fails where there is none in time."""
    deadline = time.monotonic() + timeout
    while True:
        found = poll()
        if found:
            return found
        if time.monotonic() > deadline:
            pytest.fail(f"waited {timeout:g} s for {what}")
        time.sleep(0.01)


def write_shards(folder: Path, tokens: int = 20_000) -> None:
    """Write headerless uint16 shards of a random walk that a small model can learn."""
    for split, count in (("train", tokens), ("val", tokens // 10)):
        path = folder / "phase1" / split / f"phase1-{split}-000.bin"
        path.parent.mkdir(parents=True)
        steps = np.random.default_rng(len(split)).integers(0, 4, count)
        (np.cumsum(steps) % VOCABULARY).astype("<u2").tofile(path)


def write_tokenizer(folder: Path) -> None:
    """Write a tokenizer of one token per byte beside the shards."""
    alphabet = {byte: number for number, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(alphabet, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "phase1" / "tokenizer.json"))


class Run:
    """One run, seen from outside: through its files and the command line."""

    def __init__(self, workspace: Workspace, id: str) -> None:
        self.workspace = workspace
        self.id = id
        self.run_dir = RunDir(workspace.home / "runs" / id)

    def copy_to(self, workspace: Workspace) -> Run:
        """Copy this run, which has ended, to another workspace."""
        shutil.copytree(self.run_dir.path, workspace.home / "runs" / self.id)
        return Run(workspace, self.id)

    def events(self) -> list[Record]:
        """Return every record in the log, with its offset."""
        return [{"at": at, **all_fields(event)} for at, event in read_all(self.run_dir.log_path)]

    def kind(self, kind: str) -> list[Record]:
        return [record for record in self.events() if record["kind"] == kind]

    def losses(self) -> dict[int, float]:
        """Return step → loss as a reader of the log sees it: of repeated steps the latest attempt counts."""
        losses: dict[int, float] = {}
        for record in self.events():
            if record["kind"] == "start":
                losses = {step: loss for step, loss in losses.items() if step <= (record["resumed_from"] or 0)}
            elif record["kind"] == "step":
                losses[record["step"]] = record["loss"]
        return losses

    def status(self) -> Record:
        return dict(json.loads(self.workspace.run("status", self.id, "--json").stdout))

    def phase(self) -> str | None:
        """Return the last phase in the log."""
        states = self.kind("state")
        return states[-1]["phase"] if states else None

    def process(self, role: str) -> ProcessIdentity | None:
        """Return the live ``trainer`` or ``supervisor``, or None."""
        process: ProcessIdentity | None = getattr(self.run_dir.state(), role)
        return process if is_alive(process) else None

    def pid(self, role: str) -> int:
        return wait_for(f"a live {role}", lambda: self.process(role)).pid

    def kill(self, role: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send the signal; for SIGKILL return when the process is gone."""
        process = wait_for(f"a live {role}", lambda: self.process(role))
        os.kill(process.pid, number)
        if number == signal.SIGKILL:
            wait_for(f"the end of the {role}", lambda: not is_alive(process))
        return process.pid

    def kill_both(self) -> None:
        """Kill trainer and supervisor together: the stopped trainer cannot start another supervisor."""
        self.kill("trainer", signal.SIGSTOP)
        self.kill("supervisor")
        self.kill("trainer")

    def wait_step(self, step: int, attempt: int = 1) -> Record:
        """Wait for the record of ``step``, or the first after it, of ``attempt`` or a later one."""
        at = 0

        def poll() -> Record | None:
            nonlocal at
            for offset, event in read_all(self.run_dir.log_path, at):
                at, record = offset + 1, all_fields(event)
                if record["kind"] == "step" and record["step"] >= step and record["attempt"] >= attempt:
                    return record
            return None

        return wait_for(f"step {step} of attempt {attempt} of {self.id} ({self.phase()})", poll)

    def reaches(self, step: int, timeout: float = 5.0) -> bool:
        """Whether the run reaches ``step`` within ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while (self.run_dir.state().step or 0) < step and not self.run_dir.ended():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def wait_end(self, phase: str = "finished", timeout: float = DEADLINE) -> Record:
        """Wait until the run has ended and its supervisor has exited; return the status.

        The test fails after ``timeout`` seconds without a step or another attempt: on a busy machine a run that
        restarts five times takes minutes.
        """

        def progress() -> tuple[Any, ...]:
            state = self.run_dir.state()
            return state.attempt, state.start_attempt, state.step, state.phase

        def has_ended() -> bool:
            return self.run_dir.ended() and self.process("supervisor") is None

        while (seen := progress()) and not has_ended():
            wait_for(f"the end of {self.id}", lambda: has_ended() or progress() != seen, timeout)
        status = self.status()
        console = self.run_dir.console_path.read_text() if self.run_dir.console_path.exists() else ""
        assert status["phase"] == phase, f"{status}\n{console}"
        return status

    def weights(self, step: int = STEPS) -> bytes:
        return (self.workspace.out / self.run_dir.name / f"ckpt_step_{step}" / "model.safetensors").read_bytes()


def output(process: subprocess.Popen[str]) -> IO[str]:
    """Return the pipe that a process writes to."""
    assert process.stdout is not None
    return process.stdout


class Workspace:
    """A home, shards, a profile, a folder for checkpoints, and the command that uses them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.command = MLA_TUI
        self.home, self.out, self.data = root / "home", root / "models", root / "shards"
        self.profile = root / "config" / "mla-tui" / "profiles" / "nano.toml"
        self.env = {
            # As users start it: Python keeps what it has compiled.
            **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
            "MLA_TUI_HOME": str(self.home),
            "XDG_CONFIG_HOME": str(root / "config"),
            # One thread and no GPU: the same arithmetic on every machine, and two tests share two cores.
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }
        write_shards(self.data)
        self.profile.parent.mkdir(parents=True)
        self.write_profile()

    def write_profile(self, extra: str = "", **train: Any) -> None:
        """Write the profile ``nano`` with ``train`` changed in its ``[train]`` and the TOML ``extra`` at its end."""
        tables: dict[str, dict[str, Any]] = {
            **PROFILE,
            "data": {"root": str(self.data)},
            "train": {**PROFILE["train"], "out": str(self.out), **train},
        }
        lines = []
        for name, content in tables.items():
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in content.items())]
        self.profile.write_text("\n".join(lines) + "\n" + extra)

    def find(self, id: str) -> Run:
        return Run(self, id)

    def start(self, *args: object, **options: Any) -> subprocess.Popen[str]:
        """Start a command in the background, its output in pipes."""
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(
            [str(self.command), *map(str, args)], env=self.env, cwd=self.root, text=True, **{**pipes, **options}
        )

    def run(self, *args: object, code: int = 0, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; the test fails where it exits with another code."""
        process = self.start(*args, **options)
        try:
            out, err = process.communicate(timeout=DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            pytest.fail(f"{args} took more than {DEADLINE:g} s\n{out}\n{err}")
        assert process.returncode == code, f"{args} → {process.returncode}\n{out}\n{err}"
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def assert_refused(self, *command: object, code: int, message: str) -> None:
        """Assert that the command exits with ``code``, prints only one line with ``message``, and changes nothing."""
        before = sorted(self.root.rglob("*"))
        done = self.run(*command, code=code)
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert message in done.stderr
        assert done.stdout == ""
        assert sorted(self.root.rglob("*")) == before
        assert self.processes() == []

    def launch(self, *args: object, name: str | None = "run") -> Run:
        """Start a run of the profile ``nano``."""
        names = ("--name", name) if name else ()
        return Run(self, self.run("launch", "-p", "nano", *names, *args).stdout.strip())

    def train(self, *args: object, name: str = "run") -> str:
        """Train to the end in the foreground; return the output."""
        return self.run("train", "-p", "nano", "--name", name, *args).stdout

    def cut_off_run(self, name: str, *settings: str, **state: Any) -> Run:
        """Make a run whose processes were both killed after five steps, without training: it has no checkpoint."""
        endless = ("train.steps=100000", "train.save_every=0", "train.val_every=0")
        spec = resolve_spec(load(str(self.profile), [*endless, *settings]))
        usual: dict[str, Any] = {
            "phase": "running",
            "attempt": 1,
            "host": host_name(),
            "boot": boot_id(),
            "started": time.time(),
        }
        run_dir = RunStore(self.home).create(
            spec, Launch(name=name, share_device=True), RunStatus(**{**usual, **state})
        )
        log = LogWriter(run_dir.log_path, 1)
        log.write(Start(plan={}, params=1, device="cpu", versions={}))
        log.write(State(phase="running", reason=""))
        for step in range(1, 6):
            log.write(Step(step=step, loss=5.0))
        log.close()
        return Run(self, run_dir.id)

    def processes(self) -> list[psutil.Process]:
        """Return every live process that was started in this workspace."""
        mine = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("MLA_TUI_HOME") == str(self.home) and start_ticks(process.pid):
                    mine.append(process)
            except psutil.Error:
                continue
        return mine

    def close(self) -> None:
        """Kill every process of this workspace, until none is left: trainers and supervisors restart each other."""
        deadline = time.monotonic() + DEADLINE
        while found := self.processes():
            for process in found:
                try:
                    process.kill()
                except psutil.NoSuchProcess:
                    continue
            if time.monotonic() > deadline:
                pytest.fail(f"cannot end {found}")
            time.sleep(0.02)


class WaitFor(Protocol):
    """The fixture ``wait_for``: waits for a true value of ``poll`` and returns it."""

    def __call__(self, what: str, poll: Callable[[], T | None], timeout: float = DEADLINE) -> T: ...


Terminals = Callable[..., TmuxSession]
MakeWorkspace = Callable[[], Workspace]


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    here = Workspace(tmp_path)
    yield here
    here.close()


@pytest.fixture
def terminals(workspace: Workspace) -> Iterator[Terminals]:
    """Opens terminals, each a tmux server of its own, in the test's workspace or another one."""
    opened: list[TmuxSession] = []

    def new(of: Workspace = workspace) -> TmuxSession:
        opened.append(TmuxSession(of.command, of.env, of.root, wait_for))
        return opened[-1]

    yield new
    for terminal in opened:
        terminal.close()


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A finished run of the profile ``nano`` that nothing disturbed: the one others must equal."""
    here = Workspace(tmp_path_factory.mktemp("reference"))
    try:
        run = here.launch()
        run.wait_end()
        yield run
    finally:
        here.close()


@pytest.fixture(scope="module")
def make_workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeWorkspace]:
    """Creates workspaces that several tests of a module share."""
    made: list[Workspace] = []

    def make() -> Workspace:
        made.append(Workspace(tmp_path_factory.mktemp("workspace")))
        return made[-1]

    yield make
    for here in made:
        here.close()


@pytest.fixture(name="wait_for", scope="session")
def _wait_for() -> WaitFor:
    return wait_for
