"""Defines the states of the screens, made of real run files; clock, machine and names are constant."""

from __future__ import annotations

import math
import os
import platform
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from engine.checkpoints import checkpoint
from engine.events.log import LogWriter
from engine.events.log_index import LogIndex
from engine.events.phases import is_active
from engine.events.run_dir import RunDir
from engine.events.status import Launch, RunStatus
from engine.events.types import Checkpoint, Edit, Exit, Oom, RankStats, Sample, Spec, Start, State, Step, Telemetry, Val
from engine.host.files import write_json
from engine.host.process import boot_id, process_identity
from engine.host.struct_json import to_dict, write_struct
from engine.memory.hardware import Hardware
from engine.runs.server import Server
from engine.runs.store import RunStore
from profiles import registry
from tests.unit.runs.served import Served
from tests.unit.tui.nano import Nano
from tui.app.app import MlaApp

NOW = 1_795_600_000.0  # 2026-11-25 09:46:40 UTC
HOST = "workstation"
MACHINE = Hardware("NVIDIA GeForce RTX 5080", "cuda", 16 << 30, 15 << 30, 64 << 30, 48 << 30)
GIB = 1 << 30
TERMINAL = (("TERM", "xterm-256color"), ("COLORTERM", "truecolor"))  # with fewer colours other themes are used

Size = tuple[int, int]
SIZES: tuple[Size, ...] = ((80, 24), (60, 20), (160, 48), (220, 60))
"""In columns and lines; the scenes are built up in the first."""


class World:
    """Creates runs in a home directory, and is the clock of this process."""

    def __init__(self, home: Path, patch: pytest.MonkeyPatch) -> None:
        self.now = NOW - 86_400
        for name, value in (
            ("TZ", "UTC"),
            ("MLA_TUI_HOME", str(home)),
            ("XDG_CONFIG_HOME", str(home / "config")),
            *TERMINAL,
        ):
            patch.setenv(name, value)
        time.tzset()
        real = time.localtime
        patch.setattr(time, "time", lambda: self.now)
        patch.setattr(time, "localtime", lambda t=None: real(self.now if t is None else t))
        patch.setattr(platform, "node", lambda: HOST)
        patch.setattr("engine.memory.hardware.detect_hardware", lambda cards=1: MACHINE)
        patch.setattr("engine.memory.hardware.hardware_for", lambda pid, cards: MACHINE)
        patch.setattr("tui.app.screens.run_reads.free_for_checkpoints", lambda run: 300 * GIB)
        patch.setattr(registry, "detect_profile", lambda: "pretrain_5080")
        patch.setattr(MlaApp, "NOTIFICATION_TIMEOUT", 3600)  # until the screen is drawn, however long that takes
        patch.chdir(home)  # the profiles' data and checkpoints are below it
        self.store = RunStore(home)
        self.folder = home

    def run_dir(self, name: str, steps: int, phase: str, **state: Any) -> tuple[RunDir, LogWriter]:
        """Create a run of ``pretrain_5080`` in ``phase`` that has trained ``steps`` steps of half a minute."""
        self.now = started = NOW - 3600 - steps * 27.0
        spec = registry.load("pretrain_5080", ["launch.backend=deepspeed"])
        spec = replace(spec, train=replace(spec.train, out=str(self.folder / "models"), save_every=50))
        trainer = process_identity(os.getpid()) if is_active(phase) else None
        facts: dict[str, Any] = {
            **{"profile": spec.profile, "backend": "deepspeed", "steps": spec.train.steps, "micro": 12, "accum": 8},
            **{"context": 2048, "version": "0.1.0", "host": HOST, "boot": boot_id(), "attempt": 1, "started": started},
            **{"phase": "starting" if phase == "cut-off" else phase, "step": steps, "trainer": trainer, **state},
        }
        run_dir = self.store.create(spec, Launch(name=name), RunStatus(**facts))
        log = LogWriter(run_dir.log_path, attempt=1)
        log.write(State(phase="starting", reason=""))
        if phase != "starting":
            run_dir.console_path.write_text("lisp-1b on 1 process\n")
            log.write(Start(plan={}, params=1_024_849_664, device=MACHINE.name, versions={}, resumed_from=None))
            log.write(State(phase="compiling", reason=""))
        if phase not in ("starting", "compiling"):
            log.write(State(phase="running", reason=""))
        for step in range(1, steps + 1):
            self.step(log, step)
        self.now = NOW - 60
        if phase not in ("starting", "compiling", "running", "cut-off"):
            log.write(State(phase=phase, reason=state.get("reason", "")))
        return run_dir, log

    def step(self, log: LogWriter, step: int) -> None:
        """Log the records of one step of half a minute."""
        self.now += 27.0
        wave = math.sin(step * 1.7)
        used = 9.1 * GIB + wave * GIB / 30
        log.write(
            Step(
                step=step,
                loss=2.6 + 7.8 * math.exp(-step / 40) + wave / 50,
                tok_s=7250 + 90 * wave,
                lr=3e-4 * min(step / 200, 1),
                grad_norm=1.2 + wave / 5,
                step_s=27.1,
                data_s=0.01,
                tokens=step * 196_608,
                micro=12,
                accum=8,
                context=2048,
                device_peak=int(used),
                host_states=int(16.4 * GIB),
                mfu=0.38,
            )
        )
        if step % 2 == 0:
            values = {"device_used": used, "rss": 18.2 * GIB, "ram_used": 22.5 * GIB + wave * GIB / 9}
            totals: dict[str, Any] = {"device_total": [16 * GIB] * 2, "ram_total": [64 * GIB] * 2}
            ranges: dict[str, Any] = {name: [value, value * 1.01] for name, value in values.items()}
            log.write(Telemetry(**ranges, **totals))
        if step % 50 == 0:
            log.write(Val(step=step, loss=2.7 + 7.5 * math.exp(-step / 40), bucket="", tokens=1 << 20))
            log.write(Checkpoint(step=step, path=f"models/run/ckpt_step_{step}", bytes=14 * GIB, seconds=41.0, ok=True))

    def save_checkpoint(self, run_dir: RunDir, step: int, truncated: bool = False) -> None:
        """Create a checkpoint of 14 GiB in sparse files, which take no disk space."""
        path = self.folder / "models" / run_dir.name / f"ckpt_step_{step}"
        path.mkdir(parents=True)
        sizes = {"model.safetensors": 2 * GIB, "optimizer.safetensors": 12 * GIB}
        for name, size in sizes.items():
            with open(path / name, "wb") as file:
                file.truncate(size // 2 if truncated else size)
        metadata = {"format": checkpoint.FORMAT, "step": step, "best": [3.316, 100], "spec": run_dir.spec().to_dict()}
        write_json(path / "trainer.json", metadata)
        sizes["trainer.json"] = (path / "trainer.json").stat().st_size
        files = {name: {"bytes": size, "sha256": ""} for name, size in sizes.items()}
        write_json(path / "manifest.json", {"format": checkpoint.FORMAT, "files": files})
        written = NOW - 3600 - (160 - step) * 27.0
        os.utime(path / "manifest.json", (written, written))

    def save_index(self, run_dir: RunDir) -> None:
        """Save the log index, as the supervisor of an ended run does."""
        log_index = LogIndex(run_dir)
        log_index.catch_up()
        log_index.save()
        write_struct(run_dir.state_path, log_index.state)
        log_index.close()

    @asynccontextmanager
    async def served(self, run_dir: RunDir) -> AsyncIterator[Server]:
        """Serve ``run_dir`` while the block runs, with one telemetry sample."""
        run = Served(run_dir, LogWriter(run_dir.log_path, attempt=1))
        run.index.catch_up()
        server = run.server
        await server.start()
        sizes: dict[str, Any] = {"device_total": 16 * GIB, "rss": 18 * GIB, "ram_used": 22 * GIB, "ram_total": 64 * GIB}
        server.publish(Telemetry(t=self.now, attempt=1, device_used=9 * GIB, **sizes))
        try:
            yield server
        finally:
            await server.close()
            run.index.close()

    def close(self) -> None:
        time.tzset()


@dataclass(frozen=True)
class Scene:
    """``build`` creates the runs and returns the one to open (None: the list of runs).

    ``presses`` are keys, each after a pattern that must be on the screen first. ``until`` is a pattern of the final
    screen, ``wide`` another one from 160 columns. ``lost``: the server of the run closes at the end.
    """

    name: str
    build: Callable[[World], RunDir | None]
    until: str
    presses: tuple[tuple[str, ...], ...] = ()
    lost: bool = False
    wide: str = ""

    def patterns(self, size: Size) -> tuple[str, str]:
        """Return what a screen of ``size`` shows."""
        return self.until, self.wide if size[0] >= 160 else ""


def _empty(world: World) -> None:
    return None


def _every_phase(world: World) -> None:
    """Create one run per phase."""
    for phase, steps in (("finished", 180), ("stopped", 90), ("failed", 20), ("cut-off", 60)):
        world.run_dir(f"was-{phase}", steps, phase, reason="the loss is not a number" if phase == "failed" else "")
    for phase in ("starting", "compiling", "running", "paused", "saving", "recovering"):
        world.run_dir(f"is-{phase}", 0 if phase in ("starting", "compiling") else 120, phase)
    other, _ = world.run_dir("far-away", 10, "running", host="laptop", boot="another")
    write_json(other.state_path, {**to_dict(other.state()), "host": "laptop"})
    for id in world.store.ids():
        if world.store.find(id).ended():
            world.save_index(world.store.find(id))


def _one(phase: str, steps: int = 160, **state: Any) -> Callable[[World], RunDir]:
    def build(world: World) -> RunDir:
        run_dir, log = world.run_dir("lisp-1b", steps, phase, **state)
        if phase == "failed":
            log.write(Exit(code=1, signal=None, why=state["reason"]))
        log.close()
        return run_dir

    return build


def _edited(world: World) -> RunDir:
    """Create a run whose learning rate was halved while it was active."""
    run_dir, log = world.run_dir("lisp-1b", 160, "running")
    log.write(Edit(id="1", changed={"lr_scale": (1.0, 0.5)}, step=160, by="app", ok=True, why=""))
    log.write(Spec(step=160, values={"optim.lr_scale": 0.5}))
    log.close()
    return run_dir


def _of_ranks(world: World) -> RunDir:
    """Create a run of four ranks, one of which is slower."""
    run_dir, log = world.run_dir("lisp-1b", 160, "running")
    speeds, waits = [1811.0, 1809.0, 1650.0, 1812.0], [0.01, 0.01, 1.4, 0.01]
    log.write(RankStats(step=160, memory=[int(9.1 * GIB)] * 4, tok_s=speeds, data_s=waits))
    log.close()
    return run_dir


def _with_console(world: World) -> RunDir:
    run_dir = _one("failed", reason=FAILURE)(world)
    lines = "".join(f'  File "trainer.py", line {n}, in step\n' for n in range(1, 60))
    run_dir.console_path.write_text(
        f"\x1b[31mTraceback (most recent call last):\x1b[0m\n{lines}MemoryError: no memory\n"
    )
    return run_dir


def _with_samples(world: World) -> RunDir:
    run_dir = _one("finished")(world)
    log = LogWriter(run_dir.log_path, attempt=1)
    for step in (50, 100, 150):
        text = " there was a list, and the list had a head (car) and a tail (cdr).\nBoth were happy. " * 4
        log.write(Sample(step=step, prompt="Once upon a time", text=text, tokens=64, seconds=2.4))
        log.write(Sample(step=step, text="(defun twice (x)\n\t(* 2 x))", tokens=17, seconds=0.7, cut=step == 150))
    log.close()
    return run_dir


def _out_of_memory(world: World) -> RunDir:
    """Create a run that ran out of memory and asks the user."""
    run_dir, log = world.run_dir("lisp-1b", 160, "running")
    parts = {"logits": int(3.1 * GIB), "activations": int(8.9 * GIB), "weights": int(1.9 * GIB), "workspace": GIB}
    oom: dict[str, Any] = {"where": "backward", "wanted": int(1.5 * GIB), "micro": 12, "accum": 8, "parts": parts}
    oom["capacity"] = int(14.6 * GIB)
    log.write(Oom(action="ask", text="CUDA out of memory", **oom))
    log.write(State(phase="paused", reason="out of memory: micro = ?"))
    log.close()
    return run_dir


def _checkpoints(world: World) -> RunDir:
    """Create a run with three checkpoints, the oldest of them truncated."""
    run_dir, log = world.run_dir("lisp-1b", 160, "finished")
    log.close()
    for step in (50, 100, 150):
        world.save_checkpoint(run_dir, step, truncated=step == 50)
    return run_dir


def _with_data(world: World) -> None:
    """Create a run with its data: a few kilobytes of text, one token per byte."""
    _, log = Nano.make(world.folder / "nano", train=False).run(world.store, world.folder / "models")
    log.close()


def _with_shards(world: World) -> None:
    """Write shards where the profiles expect them, most of them shorter than a context."""
    for split, lengths in (("train", (1000, 1500, 40_000)), ("val", (40_000,))):
        folder = world.folder / "data" / "shards" / "phase1" / split
        folder.mkdir(parents=True)
        for number, tokens in enumerate(lengths):
            (folder / f"{number}.bin").write_bytes(bytes([len(split), 0, 9, 0]) * (tokens // 2))


def _without_data(world: World) -> None:
    _with_data(world)
    shutil.rmtree(world.folder / "nano" / "shards")


FAILURE = (
    "gave up after 5 restarts without progress; last exit: exited with code 1; a reason of several lines goes on here"
    " so that the heading cannot hold it: it is read in lines of its own and whole in the log; read-to-the-end"
)
HISTORY = r"step 160/[\s\S]*step 150: 14"  # the last step and the last line of the log: the whole run was read
HOME = r"press n|was-stopped"
# The losses are read after the rest of the list, one run after the other; last comes the preview beside the list.
_WITH_STEPS = ("far-away", *(f"is-{phase}" for phase in ("recovering", "saving", "paused", "running")))
_ENDED = tuple(f"was-{phase}" for phase in ("cut-off", "failed", "stopped", "finished"))
WITH_LOSSES = "(?s)" + ".*".join(f"{name} [^\n]*[▁-█]" for name in (*_WITH_STEPS, *_ENDED)) + ".*memory  "
SCENES = (
    Scene("home-empty", _empty, "press n"),
    Scene("home-every-phase", _every_phase, r"is-running .*2\.992", wide=WITH_LOSSES),
    Scene(
        "home-filter",
        _every_phase,
        "2 of 11: matching",
        ((HOME, "slash", *"is-s"),),
        wide=r"is-saving .*▁[\s\S]*memory  ",
    ),
    Scene(
        "home-toasts",
        _every_phase,
        r"can be paused[\s\S]*can be stopped",
        (("is-running", "G", "p", "S"),),
        wide=WITH_LOSSES,
    ),
    Scene("home-help", _empty, "Runs: keys", ((HOME, "question_mark"),)),
    Scene("new-run", _with_shards, r"(?s)data: 19 sequences.*GiB.*-p pretrain_5080\s[^$]*F5", ((HOME, "n"),)),
    Scene(
        "new-run-refused",
        _empty,
        r"(?s)is not a.*0 is not in.*q Back",
        ((HOME, "n"), ("(?s)is not a.*-p pretrain_5080", "tab", "0")),
    ),
    Scene("monitor-starting", _one("starting", 0), r"no steps yet[\s\S]*08:46:40 starting"),
    Scene("monitor-compiling", _one("compiling", 0), r"no steps yet[\s\S]*08:46:40 compiling"),
    Scene("monitor-running", _one("running"), HISTORY),
    Scene("monitor-disconnected", _one("running"), "connection lost", ((HISTORY,),), lost=True),
    Scene("monitor-paused", _one("paused"), HISTORY),
    Scene(
        "monitor-out-of-memory",
        _out_of_memory,
        r"Out of memory[\s\S]*GiB predicted [\s\S]*micro 12→6[\s\S]*Enter applies",
        wide="[⠁-⣿]",  # a curve beside the dialog
    ),
    Scene(
        "monitor-failed",
        _one("failed", reason=FAILURE),
        r"step 160/[\s\S]*t its output[\s\S]*trainer exited",
    ),
    Scene("monitor-cut-off", _one("cut-off"), r"r resumes it[\s\S]*cut-off: neither"),
    Scene("console", _with_console, "MemoryError", (("trainer exited", "t"),)),
    Scene("monitor-samples", _with_samples, r"step 160/[\s\S]*sample at step 150: \(defun"),
    Scene("samples", _with_samples, r"step 100 · 2 of 3[\s\S]*defun", (("step 160/", "T"), ("3 of 3", "h"))),
    Scene("monitor-finished", _one("finished"), HISTORY),
    Scene("monitor-cursor", _one("finished"), "at step", ((HISTORY, "v"),)),
    Scene("monitor-ranks", _of_ranks, r"1650 tok/s data 1\.40 s"),
    Scene("monitor-spec", _edited, r"▲ optim\.lr_scale  1 → 0\.5", ((HISTORY, "d"),)),
    Scene("monitor-maximized", _one("finished"), r"log\n", ((HISTORY, "z", "y"),)),
    Scene("monitor-help", _one("finished"), "Monitor: keys", ((HISTORY, "question_mark"),)),
    Scene(
        "monitor-tuning",
        _one("running"),
        r"Live tuning[\s\S]*available to this run[\s\S]*tokens/s[\s\S]*→[\s\S]*forecast,[\s\S]*always\s",
        ((HISTORY, "e"),),
    ),
    Scene(
        "monitor-unlock",
        _one("running"),
        r"Unlock and apply",
        ((HISTORY, "e"), (r"Live tuning[\s\S]*forecast,", "tab", "tab", *"1024"), (r"tokens per step; Enter", "enter")),
    ),
    Scene("compare", _every_phase, r"by step[\s\S]*is-recovering", ((HOME, *" j j", "c"),)),
    Scene("checkpoints-none", _one("finished", 40), "no checkpoint", (("step 40/", "o"),)),
    Scene("checkpoints", _checkpoints, r"ckpt_step_150", ((HISTORY, "o"),)),
    Scene(
        "checkpoints-damaged",
        _checkpoints,
        r"or delete",
        ((HISTORY, "o"), ("ckpt_step_150", "j", "j")),
    ),
    Scene("checkpoints-sample", _checkpoints, r"\$ mla-tui sample", ((HISTORY, "o"), ("ckpt_step_150", "t"))),
    Scene(
        "checkpoints-delete", _checkpoints, r"Delete the checkpoint", ((HISTORY, "o"), ("ckpt_step_150", "j", "j", "D"))
    ),
    Scene("data", _with_data, r"sequence 1 of[\s\S]*return", (("nano", "d"),)),
    Scene("data-ids", _with_data, r"69 f +7 \(", (("nano", "d"), (r"sequence 1 of[\s\S]*return", "i"))),
    Scene("data-none", _without_data, "no data to show", (("nano", "d"),)),
    Scene("proposal", _empty, "as profile “here”", ((HOME, "i"),)),
    Scene("settings", _empty, "Theme", ((HOME, "f2"),)),
    Scene("monitor-stop", _one("running"), "Stop without saving", ((HISTORY, "S"),)),
)
