"""The app in different terminals: sizes, TERM values, slow connections, detaching and attaching."""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from engine.host.process import start_ticks
from scripts.tmux_session import TmuxSession
from tests.e2e.conftest import LOSS, Run, Terminals, WaitFor, Workspace, write_tokenizer
from tui.app.state import since_left

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
SLOW_CONNECTION = str(Path(__file__).parent / "slow_line.py")
LIVE = [word for text in ("steps=1000000", "save_every=0", "val_every=0") for word in ("-s", text)]
ALL_STEPS = r"1–240 \(240\)"  # of the reference run


def monitor_fills(terminal: TmuxSession, width: int, height: int) -> bool:
    """Return whether the terminal has this size, with the heading on its first line and the keys on its last."""
    size = terminal.tmux("display-message", "-p", "-t", "mla", "#{pane_width}x#{pane_height}")
    if size.strip() != f"{width}x{height}":
        return False
    lines = terminal.text().splitlines()
    return len(lines) == height and "run" in lines[0] and "? Help" in lines[-1] and "q Back" in lines[-1]


def shown_step(terminal: TmuxSession) -> int:
    return int(terminal.wait_text(r"step ([\d,]+)/")[1].replace(",", ""))


def test_a_session_is_detached_and_attached_at_another_size(
    workspace: Workspace, terminals: Terminals, wait_for: WaitFor
) -> None:
    run = workspace.launch(*LIVE)
    terminal = terminals()
    app = terminal.open("attach", run.id)
    first = terminal.client((100, 30))
    wait_for("the monitor at 100x30", lambda: monitor_fills(terminal, 100, 30))
    terminal.wait_text(LOSS)
    first.drop()
    before = run.kind("step")[-1]["step"]
    run.wait_step(before + 20)
    second = terminal.client((60, 20))
    wait_for("the monitor at 60x20", lambda: monitor_fills(terminal, 60, 20))
    wait_for("the steps since the detach", lambda: shown_step(terminal) > before + 20)
    terminal.tmux("detach-client", "-s", "mla")
    second.process.wait(30)
    terminal.client((132, 43))
    wait_for("the monitor at 132x43", lambda: monitor_fills(terminal, 132, 43))
    assert start_ticks(app) is not None


def test_samples_are_shown_and_who_comes_back_reads_what_happened(
    workspace: Workspace, terminals: Terminals, wait_for: WaitFor
) -> None:
    write_tokenizer(workspace.data)
    saving = [word.replace("save_every=0", "save_every=50") for word in LIVE]
    sampling = ("sample_every=50", "sample_tokens=16", 'train.sample_prompts=["abc"]')
    run = workspace.launch(*saving, *(word for text in sampling for word in ("-s", text)))
    terminal = terminals()
    terminal.open("attach", run.id)
    terminal.wait_text(LOSS)
    terminal.keys("T")
    terminal.wait_text(r"step [\d,]+ · \d+ of \d+[\s\S]*16 tokens in [\d.]+ s *\n *abc")
    terminal.keys("h", "q")
    terminal.wait_text(LOSS)
    left = shown_step(terminal)
    terminal.keys("C-q")
    terminal.wait_end()
    printed = workspace.run("samples", run.id, "--step", 50).stdout
    assert printed.startswith("── step 50 · 16 tokens in ") and "\nabc" in printed
    run.wait_step(left + 60)
    viewed = run.run_dir.path / since_left.FILE
    viewed.write_text(json.dumps({**json.loads(viewed.read_text()), "t": time.time() - 7200}))
    again = terminals()
    again.open("attach", run.id)
    shown = again.wait_text(
        r"(?s)since you left 2h ago: steps ([\d,]+) to [\d,]+, smooth loss.*×\s+checkpoint.*Esc\s+closes"
    )
    assert int(shown[1].replace(",", "")) >= left
    again.keys("C-q")
    again.wait_end()


def test_repeated_resizes_of_the_terminal(workspace: Workspace, terminals: Terminals, wait_for: WaitFor) -> None:
    """COLUMNS and LINES are set, as by some shells."""
    run = workspace.launch(*LIVE)
    terminal = terminals()
    terminal.env |= {"COLUMNS": "80", "LINES": "24"}
    terminal.open("attach", run.id)
    terminal.wait_text(LOSS)
    for _ in range(3):
        for size in ((60, 20), (300, 100)):
            terminal.resize(size)
            wait_for(f"the monitor at {size}", partial(monitor_fills, terminal, *size))
    before = shown_step(terminal)
    wait_for("new steps", lambda: shown_step(terminal) > before)
    for size in ((60, 20), (300, 100)) * 5:  # faster than it can draw
        terminal.resize(size)
    wait_for("the monitor at 300x100", lambda: monitor_fills(terminal, 300, 100))
    terminal.keys("q")
    terminal.wait_text("mla-tui · runs")
    terminal.keys("q")
    terminal.wait_end()


def test_a_copy_becomes_the_newest_tmux_buffer(reference: Run, terminals: Terminals, wait_for: WaitFor) -> None:
    """By default tmux does not let programs set the clipboard."""
    terminal = terminals(reference.workspace)
    terminal.open("attach", reference.id)
    terminal.wait_text(ALL_STEPS)
    terminal.keys("v", "C")
    wait_for("the copy", lambda: terminal.tmux("show-buffer", check=False).startswith("step\t"))
    names, values = (line.split("\t") for line in terminal.tmux("show-buffer").splitlines())
    copied = dict(zip(names, values, strict=True))
    assert copied["step"] == "120" and float(copied["loss"]) > 0


def use_over_connection(terminal: TmuxSession, run: Run, delay: float, counted: Path) -> tuple[list[str], int]:
    """Type into the filter and open a run over a connection; return the screens and the number of bytes sent."""
    text = "the quick brown fox jumps over the lazy dog 0123456789"
    screens = []
    terminal.open(through=[sys.executable, SLOW_CONNECTION, str(delay), str(counted)])
    terminal.wait_text(r"run +finished")
    terminal.keys("/")
    terminal.wait_text("loss<4")
    terminal.keys("-l", text)
    terminal.wait_text(f" ?{text} *\n")
    screens.append(terminal.text())
    terminal.keys("Escape")
    terminal.wait_text(r"run +finished")
    terminal.keys("Enter")
    terminal.wait_text(ALL_STEPS)
    terminal.keys("z", "y", "s")
    terminal.wait_text(r"\A.*\n.*\n.*\n 1 loss .* · smooth · log *\n")
    screens.append(terminal.text())
    terminal.keys("q")
    terminal.wait_text("mla-tui · runs")
    terminal.keys("q")
    terminal.wait_end()
    return screens, int(counted.read_text())


def test_a_slow_connection_shows_the_same_screens(reference: Run, terminals: Terminals, tmp_path: Path) -> None:
    """With 200 ms each way the same keys give the same screens, without many more bytes."""
    fast, sent = use_over_connection(terminals(reference.workspace), reference, 0.0, tmp_path / "fast")
    slow, sent_slow = use_over_connection(terminals(reference.workspace), reference, 0.2, tmp_path / "slow")
    assert slow == fast
    assert sent_slow < 1.2 * sent


@pytest.mark.parametrize(
    ("term", "unsupported"),
    [("screen", "[25]"), ("xterm", "[25]"), ("tmux-256color", "2"), ("xterm-256color", "2")],
    ids=lambda value: None if value in ("2", "[25]") else value,
)
def test_common_terminals_get_only_colours_they_support(
    term: str, unsupported: str, reference: Run, terminals: Terminals
) -> None:
    terminal = terminals(reference.workspace)
    terminal.open("attach", reference.id, through=["env", "-u", "COLORTERM", f"TERM={term}"])
    terminal.wait_text(ALL_STEPS)
    shown = terminal.escapes()
    assert re.search(r"\x1b\[[\d;]*[34]\d", shown), "no colour at all"
    assert not re.search(rf"\x1b\[[\d;]*[34]8;{unsupported};", shown)
    terminal.keys("z", "C-q")
    terminal.wait_end()


def test_no_color_shows_a_run_in_grey(reference: Run, terminals: Terminals) -> None:
    terminal = terminals(reference.workspace)
    terminal.open("attach", reference.id, through=["env", "NO_COLOR=1"])
    terminal.wait_text(ALL_STEPS)
    for red, green, blue in re.findall(r"[34]8;2;(\d+);(\d+);(\d+)", terminal.escapes()):
        assert red == green == blue
    terminal.keys("C-q")
    terminal.wait_end()


def test_watch_prints_plain_lines(reference: Run, terminals: Terminals) -> None:
    terminal = terminals(reference.workspace)
    terminal.open("watch", reference.id)
    terminal.wait_text("finished")
    terminal.wait_end()
    assert "\x1b[" not in terminal.escapes()
