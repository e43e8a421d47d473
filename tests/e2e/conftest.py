"""Runs of a very small model, started as people start them: through the ``mla-tui`` command, in a home of their own.

Everything a test starts carries that home in its environment, and so does everything that is started by it: that is how
a test finds its processes again at its end, whoever started them.
"""

from __future__ import annotations

import json
import os
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

from engine.events.log import read_all
from engine.events.run_dir import RunDir
from engine.host.process import is_alive, start_ticks
from tests.e2e.terminal import Terminal

MLA_TUI = Path(sys.executable).parent / "mla-tui"
DEADLINE = 90.0  # seconds that nothing here should ever need, not even on a busy machine
STEPS = 240
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


def wait_for(what: str, look: Callable[[], T | None], patience: float = DEADLINE) -> T:
    """The first true thing ``look`` gives; the test fails where it gives none in time."""
    deadline = time.monotonic() + patience
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            pytest.fail(f"waited {patience:g} s for {what}")
        time.sleep(0.01)


def write_shards(folder: Path, tokens: int = 20_000) -> None:
    """Headerless uint16 shards of a walk that a small model can learn."""
    for split, count in (("train", tokens), ("val", tokens // 10)):
        path = folder / "phase1" / split / f"phase1-{split}-000.bin"
        path.parent.mkdir(parents=True)
        steps = np.random.default_rng(len(split)).integers(0, 4, count)
        (np.cumsum(steps) % VOCABULARY).astype("<u2").tofile(path)


class Run:
    """One run, seen from outside: its files, and what the command line says of it."""

    def __init__(self, world: World, id: str) -> None:
        self.world = world
        self.id = id
        self.run_dir = RunDir(world.home / "runs" / id)

    def events(self) -> list[Record]:
        """Every record that is in the log now, with its offset."""
        return [{"at": at, **record} for at, record in read_all(self.run_dir.log_path)]

    def kind(self, kind: str) -> list[Record]:
        return [record for record in self.events() if record["kind"] == kind]

    def losses(self) -> dict[int, float]:
        """Loss by step as a reader of the log sees it: where a restart repeats steps, the latest attempt wins."""
        losses: dict[int, float] = {}
        for record in self.events():
            if record["kind"] == "start":
                losses = {step: loss for step, loss in losses.items() if step <= (record["resumed_from"] or 0)}
            elif record["kind"] == "step":
                losses[record["step"]] = record["loss"]
        return losses

    def status(self) -> Record:
        return dict(json.loads(self.world.run("status", self.id, "--json").stdout))

    def phase(self) -> str | None:
        """The phase the log speaks of last."""
        states = self.kind("state")
        return states[-1]["phase"] if states else None

    def who(self, role: str) -> Record | None:
        """Pid and start time of the living ``trainer`` or ``supervisor``."""
        who = self.run_dir.state().get(role)
        return who if is_alive(who) else None

    def pid(self, role: str) -> int:
        return int(wait_for(f"a living {role}", lambda: self.who(role))["pid"])

    def kill(self, role: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send the signal and, where it kills, return when the process is gone."""
        who = wait_for(f"a living {role}", lambda: self.who(role))
        os.kill(who["pid"], number)
        if number == signal.SIGKILL:
            wait_for(f"the end of the {role}", lambda: not is_alive(who))
        return int(who["pid"])

    def kill_both(self) -> None:
        """Trainer and supervisor at once: held, the one cannot call for another of the other."""
        self.kill("trainer", signal.SIGSTOP)
        self.kill("supervisor")
        self.kill("trainer")

    def wait_step(self, step: int, attempt: int = 1) -> Record:
        """The record of ``step`` (or the first one behind it) of ``attempt`` or a later one."""
        at = 0

        def look() -> Record | None:
            nonlocal at
            for offset, record in read_all(self.run_dir.log_path, at):
                at = offset + 1
                if record["kind"] == "step" and record["step"] >= step and record["attempt"] >= attempt:
                    return record
            return None

        return wait_for(f"step {step} of attempt {attempt} of {self.id} ({self.phase()})", look)

    def reached(self, step: int, patience: float = 5.0) -> bool:
        """Whether the run comes to ``step`` within a few seconds."""
        deadline = time.monotonic() + patience
        while (self.run_dir.state().get("step") or 0) < step and not self.run_dir.ended():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def wait_end(self, phase: str = "finished", patience: float = DEADLINE) -> Record:
        """Wait for the run's end and its supervisor's; the status then."""

        def over() -> bool:
            return self.run_dir.ended() and self.who("supervisor") is None

        wait_for(f"the end of {self.id}", over, patience)
        status = self.status()
        console = self.run_dir.console_path.read_text() if self.run_dir.console_path.exists() else ""
        assert status["phase"] == phase, f"{status}\n{console}"
        return status

    def weights(self, step: int = STEPS) -> bytes:
        return (self.world.out / self.run_dir.name / f"ckpt_step_{step}" / "model.safetensors").read_bytes()


def output(process: subprocess.Popen[str]) -> IO[str]:
    """Return the pipe that a process writes to."""
    assert process.stdout is not None
    return process.stdout


class World:
    """A home, shards, a profile and a folder for checkpoints, and the command that works on them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.command = MLA_TUI
        self.home, self.out, self.data = root / "home", root / "models", root / "shards"
        self.profile = root / "config" / "mla-tui" / "profiles" / "nano.toml"
        self.env = {
            **os.environ,
            "MLA_TUI_HOME": str(self.home),
            "XDG_CONFIG_HOME": str(root / "config"),
            # One thread and no card: the same arithmetic on every machine, and two tests share two cores.
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }
        write_shards(self.data)
        self.profile.parent.mkdir(parents=True)
        self.write_profile()

    def write_profile(self, extra: str = "", **train: Any) -> None:
        """The profile ``nano``, its ``[train]`` changed by ``train``; ``extra`` is TOML that follows it."""
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
        """A command in the background, its output in pipes."""
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(
            [str(self.command), *map(str, args)], env=self.env, cwd=self.root, text=True, **{**pipes, **options}
        )

    def run(self, *args: object, code: int = 0, **options: Any) -> subprocess.CompletedProcess[str]:
        """A command to its end; the test fails where it ends with another code."""
        process = self.start(*args, **options)
        try:
            out, err = process.communicate(timeout=DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            pytest.fail(f"{args} took more than {DEADLINE:g} s\n{out}\n{err}")
        assert process.returncode == code, f"{args} → {process.returncode}\n{out}\n{err}"
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def refused(self, *command: object, code: int, said: str) -> None:
        """The command ends with ``code`` and one line on stderr that says ``said``, and everything is as it was."""
        before = sorted(self.root.rglob("*"))
        told = self.run(*command, code=code)
        assert len(told.stderr.splitlines()) == 1, told.stderr
        assert said in told.stderr
        assert told.stdout == ""
        assert sorted(self.root.rglob("*")) == before
        assert self.processes() == []

    def launch(self, *args: object, name: str | None = "run") -> Run:
        """Start a run of the profile ``nano``."""
        names = ("--name", name) if name else ()
        return Run(self, self.run("launch", "-p", "nano", *names, *args).stdout.strip())

    def train(self, *args: object, name: str = "run") -> str:
        """Train to the end in the foreground; what it printed."""
        return self.run("train", "-p", "nano", "--name", name, *args).stdout

    def processes(self) -> list[psutil.Process]:
        """Everything alive that was started in this world."""
        mine = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("MLA_TUI_HOME") == str(self.home) and start_ticks(process.pid):
                    mine.append(process)
            except psutil.Error:
                continue
        return mine

    def close(self) -> None:
        """End everything that was started here: trainers and supervisors revive each other, so until none is left."""
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
    """The fixture ``wait_for``: waits until ``look`` gives something true and returns it."""

    def __call__(self, what: str, look: Callable[[], T | None], patience: float = DEADLINE) -> T: ...


Terminals = Callable[..., Terminal]
MakeWorld = Callable[[], World]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    here = World(tmp_path)
    yield here
    here.close()


@pytest.fixture
def terminals(world: World) -> Iterator[Terminals]:
    """Opens terminals, each a tmux server of its own; of the test's world, or of another."""
    opened: list[Terminal] = []

    def new(of: World | None = None) -> Terminal:
        opened.append(Terminal(of or world, wait_for))
        return opened[-1]

    yield new
    for terminal in opened:
        terminal.close()


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """The run of the profile ``nano`` that nobody disturbed, finished."""
    here = World(tmp_path_factory.mktemp("undisturbed"))
    try:
        run = here.launch()
        run.wait_end()
        yield run
    finally:
        here.close()


@pytest.fixture(scope="module")
def make_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeWorld]:
    """Worlds that several tests of a module share."""
    made: list[World] = []

    def make() -> World:
        made.append(World(tmp_path_factory.mktemp("world")))
        return made[-1]

    yield make
    for here in made:
        here.close()


@pytest.fixture(name="wait_for", scope="session")
def _wait_for() -> WaitFor:
    return wait_for
