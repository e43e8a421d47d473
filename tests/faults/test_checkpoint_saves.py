"""Kills a checkpoint save, or fails it with a disk error, at each system call: the newest checkpoint stays intact."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.checkpoints import checkpoint, retention
from engine.checkpoints.checkpoint import CheckpointError

torch.set_num_threads(1)
WRITING_CALLS = ("open", "write", "fsync", "rename", "mkdir", "unlink", "rmdir")
Action = Callable[[int, str, tuple[Any, ...]], None]


class CallRecorder:
    """Records every call that writes to the disk as (name, path), and runs ``action`` before each."""

    def __init__(self, action: Action) -> None:
        self.recorded: list[tuple[str, str]] = []
        self._action = action
        self._paths: dict[int, str] = {}

    @contextlib.contextmanager
    def recording(self) -> Iterator[CallRecorder]:
        real = {name: getattr(os, name) for name in WRITING_CALLS}
        try:
            for name in WRITING_CALLS:
                setattr(os, name, self._wrapped(name, real[name]))
            yield self
        finally:
            for name, function in real.items():
                setattr(os, name, function)

    def _wrapped(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if name != "open" or args[1] & os.O_CREAT:
                path = self._paths.get(args[0], str(args[0])) if name in ("write", "fsync") else str(args[0])
                self.recorded.append((name, path))
                self._action(len(self.recorded), name, args)
            result = function(*args, **options)
            if name == "open":
                self._paths[result] = str(args[0])
            return result

        return call


def state(value: float) -> dict[str, dict[str, Any]]:
    return {"model": {"w": torch.full((3, 5), value)}, "optimizer": {"m": torch.full((7,), value), "n": torch.ones(1)}}


def save(out: Path, step: int, value: float) -> None:
    checkpoint.save(out, step, state(value), {"cursor": {}}, None)


def value_of(path: Path) -> float:
    return float(checkpoint.load(path)[0]["model"]["w"][0, 0])


# The checkpoints in the folder before, {step: value}, and the step that is saved with value 9.
CASES: dict[str, tuple[dict[int, float], int]] = {
    "the first": ({}, 10),
    "a later one": ({5: 5.0}, 10),
    "one is deleted": ({3: 3.0, 4: 4.0, 5: 5.0}, 10),
    "a step saved again": ({5: 5.0, 10: 1.0}, 10),
    "the only step saved again": ({10: 1.0}, 10),
}

IN_THE_SUITE = ("one is deleted", "a step saved again")

Case = tuple[Callable[[], Path], dict[int, float], int]


@pytest.fixture(params=[pytest.param(n, marks=[] if n in IN_THE_SUITE else pytest.mark.faults) for n in CASES])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    existing, step = CASES[request.param]
    origin, out = tmp_path / "origin", tmp_path / "new" / "out"
    for number, value in existing.items():
        save(origin, number, value)

    def reset_folder() -> Path:
        shutil.rmtree(out.parent, ignore_errors=True)
        if existing:
            shutil.copytree(origin, out)
        return out

    return reset_folder, existing, step


def save_and_apply_retention(out: Path, step: int) -> None:
    save(out, step, 9.0)
    retention.apply_retention(out, keep=2, best=4)


def assert_intact(out: Path, existing: dict[int, float], step: int) -> None:
    """Assert that readers find intact checkpoints, and that another save cleans up the folder."""
    intact = {n: value_of(checkpoint.path_of_step(out, n)) for n in checkpoint.steps(out)}
    for n, value in intact.items():
        assert value in (9.0, existing.get(n)) if n == step else value == existing[n], intact
    newest = checkpoint.latest(out)
    if existing:
        assert newest is not None
        assert max(existing) in intact and (4 not in existing or 4 in intact)
        assert value_of(newest) in (9.0, existing[max(existing)])
        assert checkpoint.find(str(out)) == newest
    if newest is not None:
        assert checkpoint.newest_intact(out, pytest.fail) == newest
    save(out, 15, 15.0)
    assert checkpoint.latest(out) == out / "ckpt_step_15"
    assert {n: value_of(out / f"ckpt_step_{n}") for n in checkpoint.steps(out)} == intact | {15: 15.0}
    assert {p.name for p in out.iterdir()} == {"latest", *(f"ckpt_step_{n}" for n in (*intact, 15))}


def test_a_kill_at_any_call(case: Case) -> None:
    reset_folder, existing, step = case

    def kill_at(last: int) -> Action:
        def action(number: int, name: str, args: tuple[Any, ...]) -> None:
            if number == last:
                if name == "write":  # half of it has been written
                    real_write(args[0], args[1][: len(args[1]) // 2])
                os._exit(9)

        return action

    real_write = os.write
    for last in range(1, 1000):
        out = reset_folder()
        child = os.fork()
        if not child:
            with contextlib.suppress(BaseException), CallRecorder(kill_at(last)).recording():
                save_and_apply_retention(out, step)
                os._exit(0)
            os._exit(1)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        assert code in (0, 9)
        assert_intact(out, existing, step)
        if code == 0:
            assert last > 20
            return


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=errno.errorcode.get)
def test_a_disk_error_at_any_call(case: Case, number: int) -> None:
    reset_folder, existing, step = case

    def fail_at(last: int) -> Action:
        def action(count: int, name: str, args: tuple[Any, ...]) -> None:
            if count == last:
                raise OSError(number, os.strerror(number))

        return action

    for last in range(1, 1000):
        out, failed = reset_folder(), ""
        with CallRecorder(fail_at(last)).recording() as calls:
            try:
                save_and_apply_retention(out, step)
            except CheckpointError as error:
                failed = str(error)
        if failed:
            assert failed.startswith(f"{out}/ckpt_step_{step}: ") and os.strerror(number) in failed
        else:
            # Only a deletion may fail silently: the next save repeats it.
            assert len(calls.recorded) < last or calls.recorded[last - 1][0] in ("unlink", "rmdir", "rename")
            newest = checkpoint.latest(out)
            assert newest == out / f"ckpt_step_{step}" and value_of(newest) == 9.0
        if last > len(calls.recorded):
            assert last > 20
            return
        assert_intact(out, existing, step)


def test_everything_is_fsynced_before_the_pointer_changes(case: Case) -> None:
    reset_folder, _, step = case
    out = reset_folder()
    with CallRecorder(lambda *_: None).recording() as calls:
        save(out, step, 9.0)
    temporary, pointer = str(out / f".ckpt_step_{step}.{os.getpid()}"), str(out / f".latest.{os.getpid()}")
    recorded = calls.recorded
    files = [path for name, path in recorded if name == "open" and path.startswith(temporary)]
    assert len(files) == 4
    for path in files:
        assert max(recorded.index(("fsync", path)), _last(recorded, ("write", path))) == recorded.index(("fsync", path))
    order = [
        max(recorded.index(("fsync", path)) for path in files),
        recorded.index(("fsync", temporary)),
        recorded.index(("rename", temporary)),
        recorded.index(("fsync", str(out)), recorded.index(("rename", temporary))),
        recorded.index(("write", pointer)),
        recorded.index(("fsync", pointer)),
        recorded.index(("rename", pointer)),
        _last(recorded, ("fsync", str(out))),
    ]
    assert order == sorted(set(order))


def _last(recorded: list[tuple[str, str]], call: tuple[str, str]) -> int:
    return len(recorded) - 1 - recorded[::-1].index(call)


# -- files truncated or with flipped bits on the disk

FILES = ("model.safetensors", "optimizer.safetensors", "trainer.json", "manifest.json")


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named_and_the_previous_checkpoint_is_used(tmp_path: Path, name: str) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    save(tmp_path / "origin", 5, 5.0)
    save(tmp_path / "origin", 10, 9.0)
    size = (tmp_path / "origin" / "ckpt_step_10" / name).stat().st_size
    for at in {0, size - 1, *(draw.randrange(size) for _ in range(30))}:
        for truncated in (False, True):
            out = tmp_path / "out"
            shutil.rmtree(out, ignore_errors=True)
            shutil.copytree(tmp_path / "origin", out)
            file = out / "ckpt_step_10" / name
            content = bytearray(file.read_bytes())
            content[at] ^= 1 << draw.randrange(8)
            file.write_bytes(content[:at] if truncated else content)
            warnings: list[str] = []
            assert checkpoint.newest_intact(out, warnings.append) == out / "ckpt_step_5", (at, truncated)
            assert len(warnings) == 1 and str(out / "ckpt_step_10") in warnings[0]
            assert checkpoint.steps(out) == [5]


def test_a_damaged_pointer_still_leads_to_an_intact_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 5, 5.0)
    save(tmp_path, 10, 9.0)
    pointer = (tmp_path / "latest").read_bytes()
    damaged = [pointer[:at] for at in range(len(pointer))]
    damaged += [
        bytes(b ^ (1 << bit if i == at else 0) for i, b in enumerate(pointer)) for at in range(13) for bit in range(8)
    ]
    for content in damaged:
        (tmp_path / "latest").write_bytes(content)
        newest = checkpoint.latest(tmp_path)
        assert newest == tmp_path / "ckpt_step_10", content
        assert checkpoint.newest_intact(tmp_path, pytest.fail) == newest


# -- a separate process, whose system calls strace fails or answers with SIGKILL

SAVE = """
import sys, torch
from pathlib import Path
from engine.checkpoints import checkpoint
state = {"model": {"w": torch.full((3, 5), 9.0)}, "optimizer": {"m": torch.full((7,), 9.0), "n": torch.ones(1)}}
try:
    checkpoint.save(Path(sys.argv[1]), 10, state, {"cursor": {}}, None)
except checkpoint.CheckpointError as error:
    print(error)
"""


def strace() -> str:
    found = shutil.which("strace")
    if not found or subprocess.run([found, "-o", "/dev/null", "true"], capture_output=True).returncode:
        pytest.skip("strace is not installed or may not trace: install it and allow ptrace")
    return found


ANOTHER, AGAIN = {5: 5.0}, {10: 1.0}


@pytest.mark.parametrize(
    ("existing", "injected"),
    [
        (AGAIN, "/^rename:signal=SIGKILL:when=2"),  # the old one is renamed away, the new one not yet in its place
        (ANOTHER, "fsync:error=EIO:when=3"),
        *(
            pytest.param(existing, injected, marks=pytest.mark.faults)
            for existing in (ANOTHER, AGAIN)
            for injected in (
                *(f"/^rename:signal=SIGKILL:when={n}" for n in (1, 3)),
                *(f"/^rename:error=EIO:when={n}" for n in (1, 2)),
                *(f"fsync:signal=SIGKILL:when={n}" for n in (1, 2, 5, 6, 7, 8)),
                "/^mkdir:error=ENOSPC:when=1",
            )
        ),
    ],
    ids=str,
)
def test_a_process_that_strace_fails_or_kills(tmp_path: Path, existing: dict[int, float], injected: str) -> None:
    out = tmp_path / "out"
    for step, value in existing.items():
        save(out, step, value)
    script = tmp_path / "save.py"
    script.write_text(SAVE)
    call = injected.partition(":")[0]
    tracer = [strace(), "-f", "-o", str(tmp_path / "trace"), "-e", f"trace={call}"]
    done = subprocess.run(
        [*tracer, "-e", f"inject={injected}", sys.executable, str(script), str(out)],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    if "signal" in injected:
        killed = injected != "/^rename:signal=SIGKILL:when=3" or existing is AGAIN  # else there are two
        assert done.returncode == (-signal.SIGKILL if killed else 0), done.stderr
    else:
        assert (done.returncode, done.stderr) == (0, "")
        assert "ckpt_step_10: " in done.stdout
    assert_intact(out, existing, 10)
