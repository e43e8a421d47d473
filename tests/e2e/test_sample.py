"""Tests ``mla-tui sample``: prompts as an option, from a pipe and from a terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from engine.checkpoints import checkpoint
from tests.e2e.conftest import MakeWorkspace, WaitFor, Workspace, write_tokenizer
from tui.cli.main import main

SPEED = re.compile(r"^(\d+) tokens?, [\d.e+]+ tokens/s \(prompt: \d+ tokens? in [\d.e-]+ s\); cache [\d.]+ KiB")


@pytest.fixture(scope="module")
def trained(make_workspace: MakeWorkspace) -> Workspace:
    """A workspace with a short run whose checkpoint has a tokenizer of one token per byte."""
    workspace = make_workspace()
    write_tokenizer(workspace.data)
    workspace.train("-s", "steps=20", "-s", "val_every=0")
    return workspace


def sample(workspace: Workspace, *args: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return workspace.run("sample", workspace.out / "run", "--tokens", 12, *args, **options)


def test_the_text_is_on_stdout_and_the_speed_on_stderr(trained: Workspace) -> None:
    done = sample(trained, "--prompt", "abc")
    assert done.stdout.startswith("abc") and done.stdout.endswith("\n") and len(done.stdout) > 4
    (line,) = done.stderr.splitlines()
    assert SPEED.match(line) and line.startswith("12 tokens,")


def sampled(workspace: Workspace, capsys: pytest.CaptureFixture[str], *args: object) -> tuple[str, str]:
    """Return what the command writes to stdout and stderr; it runs in this process, which has torch already."""
    assert main(["sample", str(workspace.out / "run"), *map(str, args)]) == 0
    return capsys.readouterr()


def test_the_same_seed_gives_the_same_text(trained: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    def text(*args: object) -> str:
        return sampled(trained, capsys, "--tokens", 12, "--prompt", "abc", *args)[0]

    hot = ("--temperature", 2)
    assert text(*hot, "--seed", 5) == text(*hot, "--seed", 5) != text(*hot, "--seed", 6)
    # With the smallest nucleus or at temperature 0 there is only one choice.
    assert text("--temperature", 0, "--seed", 1) == text(*hot, "--top-p", "1e-9", "--seed", 2)


def test_standard_input_without_an_end_is_refused(
    trained: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open("/dev/zero") as zero:
        monkeypatch.setattr("sys.stdin", zero)
        assert main(["sample", str(trained.out / "run")]) == 1
    assert "standard input has more than 4,194,304 characters: give the end of it" in capsys.readouterr().err


def test_a_prompt_may_come_through_a_pipe(
    trained: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "prompt"
    path.write_text("abc\n")
    with open(path) as file:
        piped = sample(trained, "--temperature", 0, stdin=file).stdout
    assert piped == sampled(trained, capsys, "--tokens", 12, "--temperature", 0, "--prompt", "abc")[0]


def test_a_text_longer_than_the_context_continues_and_says_so(
    trained: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    _, err = sampled(trained, capsys, "--tokens", 50, "--prompt", "x" * 40)
    assert "the prompt has 40 tokens; only the last 32 are used" in err
    assert "50 tokens, " in err and "longer than the context of 32" in err


def test_at_a_terminal_it_asks_until_the_prompt_is_empty(trained: Workspace, wait_for: WaitFor) -> None:
    ours, theirs = pty.openpty()
    process = trained.start("sample", trained.out / "run", "--tokens", 8, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.set_blocking(ours, False)
    received = bytearray()

    def printed(text: bytes, times: int) -> bool:
        with contextlib.suppress(OSError):  # no output yet, or the other end is closed
            received.extend(os.read(ours, 65536))
        return received.count(text) >= times

    for number, prompt in enumerate([b"abc", b"abc", b"zz"], 1):
        wait_for("a prompt", partial(printed, b"prompt> ", number))
        os.write(ours, prompt + b"\n")
        wait_for("its cost", partial(printed, b"tokens/s", number))
    wait_for("another prompt", lambda: printed(b"prompt> ", 4))
    os.write(ours, b"\n")
    assert process.wait(30) == 0
    os.close(ours)
    first, second = re.findall(rb"prompt> abc\r\n(.*?)\r\n8 tokens", bytes(received), re.DOTALL)
    assert first != second  # another seed for each


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("--temperature", "-1"), 2, "temperature: -1.0 is not a finite number from 0 up"),
        (("--top-p", "0"), 2, "top_p: 0.0 is not above 0 and at most 1"),
        (("--seed", "-3"), 2, "seed: -3 is not in 0.."),
        (("--tokens", "0"), 2, "--tokens: 0 must be at least 1"),
    ],
)
def test_a_wrong_setting_is_one_line(
    trained: Workspace, args: tuple[str, ...], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refusal(trained.out / "run", capsys, code, *args).startswith(f"mla-tui: {message}")


def refusal(path: Path, capsys: pytest.CaptureFixture[str], code: int, *args: str) -> str:
    """Return the one line with which the command refuses; it runs in this process."""
    assert main(["sample", str(path), "--prompt", "a", *args]) == code
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1
    return str(err)


def test_a_wrong_checkpoint_is_one_line(trained: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere" in refusal(trained.root / "nowhere", capsys, 1)
    damaged = trained.root / "damaged" / "ckpt_step_20"
    shutil.copytree(trained.out / "run" / "ckpt_step_20", damaged)
    (damaged / "tokenizer.json").write_text("{}")
    assert "tokenizer.json: is not what was saved" in refusal(damaged, capsys, 1)
    without, _ = checkpoint.save(
        trained.root / "without", 1, *checkpoint.load(trained.out / "run" / "ckpt_step_20"), None
    )
    assert "ckpt_step_1: has no tokenizer.json; copy the one" in refusal(without, capsys, 1)
