"""The app as a person at the other end of an ssh session has it: bytes, waiting, processor time, memory.

The runs are real runs with a real supervisor, which samples the machine once a second; the trainer's part is played by
us, who hold its lock and append a real step record once a second.

Floors, written before measuring:

- A tick of four panes changes a few dots, two numbers a title and a dozen digits of the status lines: about 40 places,
  8 bytes to go to each and 2 to write there, some 0.4 KB.
- A key is answered within one turn of Textual's loop: 5 to 15 ms.
- Python, Textual and a stylesheet take 0.2 s to the first byte; the history of a long run 0.05 s more.
"""

from __future__ import annotations

import json
import statistics
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.events.log import LogWriter
from engine.events.log_index import LogIndex
from engine.events.run_dir import RunDir
from tests.bench.leet import PAINTED, bench_leet
from tests.bench.log import fill, make_run, step_fields, supervised
from tests.bench.measure import MLA_TUI, Pty, Size, cpu, family, peak, pss, rss, tell

SIZES: tuple[Size, ...] = ((80, 24), (200, 50))
FILLED = 600  # steps a live run has when it is looked at
SECONDS = 30  # of looking
LOAD = 200_000  # steps of the run that both this app and LEET load
SLOW_LINE = "--low-bandwidth"
CLOSER = b"iii"


def bench_app(home: Path, leet: str | None = None) -> None:
    _live(home)
    _load(home, LOAD)
    _load(home, 1_000_000)
    _closer(home, 1_000_000)
    _long_log(home)
    if leet:
        app = [MLA_TUI, "attach", f"long-{LOAD}"]
        bench_leet(home / "wandb", leet, _watch, app, SIZES, FILLED, LOAD)
    else:
        print("W&B LEET: not measured; name a wandb executable with --leet PATH")


def _live(home: Path) -> None:
    run = make_run(home, "live", steps=200_000)
    fill(run, FILLED)
    with supervised(run), stepping(run):
        for size in SIZES:
            _watch("app", [MLA_TUI, "attach", run.id], size)
            _watch(f"app {SLOW_LINE}", [MLA_TUI, "attach", run.id, SLOW_LINE], size)
            _watch("app, the newest steps zoomed", [MLA_TUI, "attach", run.id], size, keys=CLOSER)
        _latency(run)


@contextmanager
def stepping(run: RunDir) -> Iterator[None]:
    """While the block runs, a step record a second is appended to the run's log."""
    done = threading.Event()

    def write() -> None:
        log, step = LogWriter(run.log_path, 1), FILLED
        while not done.wait(1.0):
            step += 1
            log.write("step", **step_fields(step))
        log.close()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        done.set()
        writer.join()


def _watch(what: str, argv: Sequence[str], size: Size, env: Mapping[str, str] | None = None, keys: bytes = b"") -> None:
    """Look at a live run for a while, after some ``keys``. All processes of the program count."""
    app = Pty(argv, size, env)
    painted = app.read_bytes(PAINTED)
    app.read_for(4)
    app.write(keys)
    app.read_for(4)
    ours = family(app.pid)
    before = sum(map(cpu, ours))
    sent = app.read_for(SECONDS)
    share = (sum(map(cpu, ours)) - before) / SECONDS
    print(
        f"{what}, {size[0]}x{size[1]}, live for {SECONDS} s: {sent / SECONDS / 1024:.2f} KB/s, {share:.2%} of a core,"
        f" {sum(map(rss, ours)) / 1e6:.0f} MB resident, {sum(map(pss, ours)) / 1e6:.0f} MB proportional;"
        f" painted after {painted:.2f} s"
    )
    app.close()


def _latency(run: RunDir) -> None:
    for size in SIZES:
        app = Pty([MLA_TUI, "attach", run.id], size)
        app.read_for(4)
        times = [app.press(b"12"[i % 2 : i % 2 + 1]) * 1e3 for i in range(1, 31)]
        tell(f"a key (the focus moves) to the first byte, {size[0]}x{size[1]}, live run", times, "ms")
        app.close()


def ended(home: Path, name: str, steps: int) -> RunDir:
    """A finished run as its supervisor leaves it: with its history beside its log."""
    run = make_run(home, name, phase="finished", steps=steps)
    fill(run, steps)
    _save_index(run)
    return run


def _save_index(run: RunDir) -> None:
    log_index = LogIndex(run)
    log_index.catch_up()
    log_index.save()
    run.state_path.write_text(json.dumps({**run.state(), **log_index.summary, "phase": "finished"}))


def _load(home: Path, steps: int) -> None:
    """From exec until the charts are full and nothing more comes."""
    run = ended(home, f"long-{steps}", steps)
    for size in SIZES:
        seen = []
        for _ in range(5):
            app = Pty([MLA_TUI, "attach", run.id], size)
            seen.append(app.settle())
            memory = pss(app.pid)
            app.close()
        first, full = (statistics.median(s[i] for s in seen) for i in (0, 1))
        print(
            f"app, {size[0]}x{size[1]}, an ended run of {steps} steps: first byte {first:.2f} s, charts full"
            f" {full:.2f} s (median of 5), {seen[-1].sent / 1024:.1f} KB, {memory / 1e6:.0f} MB proportional"
        )


def _closer(home: Path, steps: int) -> None:
    """Zooming from all of a long run to single steps, along it and back, as fast as keys repeat."""
    for size in SIZES:
        app = Pty([MLA_TUI, "attach", f"long-{steps}"], size)
        app.settle()
        attached = rss(app.pid)
        for key in b"i" * 40 + b"h" * 40 + b"u" * 40:
            app.write(bytes([key]))
            app.read_for(0.15)
        app.read_for(2)
        print(
            f"app, {size[0]}x{size[1]}, {steps} steps: {attached / 1e6:.1f} MB resident when attached, at most"
            f" {peak(app.pid) / 1e6:.1f} MB while 40 keys zoom in, 40 go back along the run and 40 zoom out"
        )
        app.close()


def _long_log(home: Path) -> None:
    """What a log of a million lines takes of the app's memory beyond a run of ten."""
    sizes = {}
    for lines in (10, 1_000_000):
        run = make_run(home, f"lines-{lines}", phase="finished", steps=10)
        record: dict[str, Any] = {"t": 1.7e9, "kind": "log", "attempt": 1, "level": "info", "rank": 0}
        with open(run.log_path, "w", encoding="utf-8", buffering=1 << 20) as log:
            for n in range(lines):
                log.write(
                    json.dumps({**record, "t": 1.7e9 + n, "text": f"line {n} of what a library has to say"}) + "\n"
                )
        _save_index(run)
        app = Pty([MLA_TUI, "attach", run.id], (80, 24))
        app.settle()
        sizes[lines] = pss(app.pid) / 1e6
        app.close()
    few, many = sizes.values()
    print(f"a log of 1000000 lines: {many:.1f} MB proportional, {many - few:+.1f} MB beside one of ten lines")
