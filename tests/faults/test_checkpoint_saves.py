"""A save that dies, or that the disk refuses, at each of its calls: there is always a whole newest checkpoint."""

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

from engine.checkpoints import checkpoint
from engine.checkpoints.checkpoint import CheckpointError

torch.set_num_threads(1)
CHANGING = ("open", "write", "fsync", "rename", "mkdir", "unlink", "rmdir")
Act = Callable[[int, str, tuple[Any, ...]], None]


class Calls:
    """Every call that changes a disk, in order: (name, path it speaks of)."""

    def __init__(self, act: Act) -> None:
        self.seen: list[tuple[str, str]] = []
        self._act = act
        self._paths: dict[int, str] = {}

    @contextlib.contextmanager
    def watched(self) -> Iterator[Calls]:
        real = {name: getattr(os, name) for name in CHANGING}
        try:
            for name in CHANGING:
                setattr(os, name, self._wrapped(name, real[name]))
            yield self
        finally:
            for name, function in real.items():
                setattr(os, name, function)

    def _wrapped(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if name != "open" or args[1] & os.O_CREAT:
                path = self._paths.get(args[0], str(args[0])) if name in ("write", "fsync") else str(args[0])
                self.seen.append((name, path))
                self._act(len(self.seen), name, args)
            result = function(*args, **options)
            if name == "open":
                self._paths[result] = str(args[0])
            return result

        return call


def state(value: float) -> dict[str, dict[str, Any]]:
    return {"model": {"w": torch.full((3, 5), value)}, "optimizer": {"m": torch.full((7,), value), "n": torch.ones(1)}}


def put(out: Path, step: int, value: float) -> None:
    checkpoint.save(out, step, state(value), {"cursor": {}}, None)


def value_of(path: Path) -> float:
    return float(checkpoint.load(path)[0]["model"]["w"][0, 0])


# What a folder holds before, {step: value}, and the step that is saved with value 9.
BEFORE: dict[str, tuple[dict[int, float], int]] = {
    "the first of all": ({}, 10),
    "after another": ({5: 5.0}, 10),
    "and one is deleted": ({3: 3.0, 4: 4.0, 5: 5.0}, 10),
    "a step saved again": ({5: 5.0, 10: 1.0}, 10),
    "the only one saved again": ({10: 1.0}, 10),
}


IN_THE_SUITE = ("and one is deleted", "a step saved again")

Scene = tuple[Callable[[], Path], dict[int, float], int]


@pytest.fixture(params=[pytest.param(n, marks=[] if n in IN_THE_SUITE else pytest.mark.faults) for n in BEFORE])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Scene:
    held, step = BEFORE[request.param]
    origin, out = tmp_path / "origin", tmp_path / "new" / "out"
    for number, value in held.items():
        put(origin, number, value)

    def fresh() -> Path:
        shutil.rmtree(out.parent, ignore_errors=True)
        if held:
            shutil.copytree(origin, out)
        return out

    return fresh, held, step


def saved_and_retained(out: Path, step: int) -> None:
    put(out, step, 9.0)
    checkpoint.apply_retention(out, keep=2, best=4)


def looked_at(out: Path, held: dict[int, float], step: int) -> None:
    """The folder as a reader finds it after whatever happened, and what a writer makes of it."""
    whole = {n: value_of(checkpoint.path_of_step(out, n)) for n in checkpoint.steps(out)}
    assert all(value in (9.0, held.get(n)) if n == step else value == held[n] for n, value in whole.items()), whole
    newest = checkpoint.latest(out)
    if held:
        assert newest is not None
        assert max(held) in whole and (4 not in held or 4 in whole)
        assert value_of(newest) in (9.0, held[max(held)])
        assert checkpoint.find(str(out), out) == checkpoint.find("latest", out) == newest
    if newest is not None:
        assert checkpoint.newest_intact(out, pytest.fail) == newest
    put(out, 15, 15.0)
    assert checkpoint.latest(out) == out / "ckpt_step_15"
    assert {n: value_of(out / f"ckpt_step_{n}") for n in checkpoint.steps(out)} == whole | {15: 15.0}
    assert {p.name for p in out.iterdir()} == {"latest", *(f"ckpt_step_{n}" for n in (*whole, 15))}


def test_death_at_any_call(scene: Scene) -> None:
    fresh, held, step = scene

    def dies_at(last: int) -> Act:
        def act(number: int, name: str, args: tuple[Any, ...]) -> None:
            if number == last:
                if name == "write":  # with half of it on the disk
                    real_write(args[0], args[1][: len(args[1]) // 2])
                os._exit(9)

        return act

    real_write = os.write
    for last in range(1, 1000):
        out = fresh()
        child = os.fork()
        if not child:
            with contextlib.suppress(BaseException), Calls(dies_at(last)).watched():
                saved_and_retained(out, step)
                os._exit(0)
            os._exit(1)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        assert code in (0, 9)
        looked_at(out, held, step)
        if code == 0:
            assert last > 20
            return


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=errno.errorcode.get)
def test_a_refusal_of_any_call(scene: Scene, number: int) -> None:
    fresh, held, step = scene

    def refuses_at(last: int) -> Act:
        def act(count: int, name: str, args: tuple[Any, ...]) -> None:
            if count == last:
                raise OSError(number, os.strerror(number))

        return act

    for last in range(1, 1000):
        out, failed = fresh(), ""
        with Calls(refuses_at(last)).watched() as calls:
            try:
                saved_and_retained(out, step)
            except CheckpointError as error:
                failed = str(error)
        if failed:
            assert failed.startswith(f"{out}/ckpt_step_{step}: ") and os.strerror(number) in failed
        else:
            # Only a deletion may fail without a word: it is done by the next save.
            assert len(calls.seen) < last or calls.seen[last - 1][0] in ("unlink", "rmdir", "rename")
            newest = checkpoint.latest(out)
            assert newest == out / f"ckpt_step_{step}" and value_of(newest) == 9.0
        if last > len(calls.seen):
            assert last > 20
            return
        looked_at(out, held, step)


def test_everything_is_on_the_disk_before_it_is_pointed_at(scene: Scene) -> None:
    fresh, _, step = scene
    out = fresh()
    with Calls(lambda *_: None).watched() as calls:
        put(out, step, 9.0)
    beside, pointer = str(out / f".ckpt_step_{step}.{os.getpid()}"), str(out / f".latest.{os.getpid()}")
    seen = calls.seen
    files = [path for name, path in seen if name == "open" and path.startswith(beside)]
    assert len(files) == 4
    for path in files:
        assert max(seen.index(("fsync", path)), _last(seen, ("write", path))) == seen.index(("fsync", path))
    order = [
        max(seen.index(("fsync", path)) for path in files),
        seen.index(("fsync", beside)),
        seen.index(("rename", beside)),
        seen.index(("fsync", str(out)), seen.index(("rename", beside))),
        seen.index(("write", pointer)),
        seen.index(("fsync", pointer)),
        seen.index(("rename", pointer)),
        _last(seen, ("fsync", str(out))),
    ]
    assert order == sorted(set(order))


def _last(seen: list[tuple[str, str]], call: tuple[str, str]) -> int:
    return len(seen) - 1 - seen[::-1].index(call)


# -- what is torn or flipped on the disk itself

FILES = ("model.safetensors", "optimizer.safetensors", "trainer.json", "manifest.json")


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named_and_the_one_before_is_taken(tmp_path: Path, name: str) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    put(tmp_path / "origin", 5, 5.0)
    put(tmp_path / "origin", 10, 9.0)
    size = (tmp_path / "origin" / "ckpt_step_10" / name).stat().st_size
    for at in {0, size - 1, *(draw.randrange(size) for _ in range(30))}:
        for torn in (False, True):
            out = tmp_path / "out"
            shutil.rmtree(out, ignore_errors=True)
            shutil.copytree(tmp_path / "origin", out)
            file = out / "ckpt_step_10" / name
            content = bytearray(file.read_bytes())
            content[at] ^= 1 << draw.randrange(8)
            file.write_bytes(content[:at] if torn else content)
            told: list[str] = []
            assert checkpoint.newest_intact(out, told.append) == out / "ckpt_step_5", (at, torn)
            assert len(told) == 1 and str(out / "ckpt_step_10") in told[0]
            assert checkpoint.steps(out) == [5]


def test_a_damaged_pointer_still_leads_to_a_whole_checkpoint(tmp_path: Path) -> None:
    put(tmp_path, 5, 5.0)
    put(tmp_path, 10, 9.0)
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


# -- a real process, its calls refused or answered with death by the kernel's own tracer

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
        pytest.skip("strace is not here, or may not trace: install it, and allow ptrace")
    return found


ANOTHER, AGAIN = {5: 5.0}, {10: 1.0}


@pytest.mark.parametrize(
    ("held", "injected"),
    [
        (AGAIN, "/^rename:signal=SIGKILL:when=2"),  # the old one is out of the way, the new one not yet in its place
        (ANOTHER, "fsync:error=EIO:when=3"),
        *(
            pytest.param(held, injected, marks=pytest.mark.faults)
            for held in (ANOTHER, AGAIN)
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
def test_a_process_that_the_kernel_refuses_or_kills(tmp_path: Path, held: dict[int, float], injected: str) -> None:
    out = tmp_path / "out"
    for step, value in held.items():
        put(out, step, value)
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
        killed = injected != "/^rename:signal=SIGKILL:when=3" or held is AGAIN  # else there are two
        assert done.returncode == (-signal.SIGKILL if killed else 0), done.stderr
    else:
        assert (done.returncode, done.stderr) == (0, "")
        assert "ckpt_step_10: " in done.stdout
    looked_at(out, held, 10)
