"""Measures the app as seen through ssh: bytes sent, latency, CPU time, memory.

Runs have a real supervisor, which samples the machine once a second. The benchmark stands in for the trainer: it holds
the trainer's lock and appends a real step record once a second.

Lower bounds, written before measuring:

- A tick of four panes changes a few dots, two numbers per title and a dozen digits of the status lines: about 40
  places, with 8 bytes to move to each and 2 to write, some 0.4 KB.
- A key is handled within one iteration of Textual's event loop: 5 to 15 ms.
- Python, Textual and a stylesheet take 0.2 s to the first byte; the history of a long run 0.05 s more.
"""

from __future__ import annotations

import statistics
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec.structs import replace

from engine.events.log import LogWriter
from engine.events.log_index import LogIndex
from engine.events.run_dir import RunDir
from engine.events.types import Log, Step
from engine.host.struct_json import encode, write_struct
from tests.bench.leet import PAINTED, bench_leet
from tests.bench.log import fill, make_run, step_fields, supervised
from tests.bench.measure import MLA_TUI, Pty, Size, cpu, peak, process_tree, pss, report, rss

SIZES: tuple[Size, ...] = ((80, 24), (200, 50))
YOUNG_STEPS = 5  # steps of a run that has just begun
INITIAL_STEPS = 600  # steps of an active run when the app attaches
SECONDS = 30  # of one measurement
LOADED_STEPS = 200_000  # steps of the ended run that this app and LEET load
LOW_BANDWIDTH = "--low-bandwidth"
ZOOM_KEYS = b"iii"
KEYS = {"the focus moves": b"21", "zoom": b"iu", "a cursor": b"vv"}


def bench_app(home: Path, leet: str | None = None) -> None:
    _young_run(home)
    _active_run(home)
    _load(home, LOADED_STEPS)
    _load(home, 1_000_000)
    _zoom(home, 1_000_000)
    _long_log(home)
    if leet:
        app = [MLA_TUI, "attach", f"long-{LOADED_STEPS}"]
        bench_leet(home / "wandb", leet, _watch, app, SIZES, INITIAL_STEPS, LOADED_STEPS)
    else:
        print("W&B LEET: not measured; name a wandb executable with --leet PATH")


def _young_run(home: Path) -> None:
    """Measure a run within its first hundred steps, when every axis still grows."""
    for size in SIZES:
        run = make_run(home, f"young-{size[0]}", steps=200_000)
        fill(run, YOUNG_STEPS)
        with supervised(run), stepping(run, YOUNG_STEPS):
            _watch("app, a young run", [MLA_TUI, "attach", run.id], size)


def _active_run(home: Path) -> None:
    run = make_run(home, "live", steps=200_000)
    fill(run, INITIAL_STEPS)
    with supervised(run), stepping(run, INITIAL_STEPS):
        for size in SIZES:
            _watch("app", [MLA_TUI, "attach", run.id], size)
            _watch(f"app {LOW_BANDWIDTH}", [MLA_TUI, "attach", run.id, LOW_BANDWIDTH], size)
            _watch("app, the newest steps zoomed", [MLA_TUI, "attach", run.id], size, keys=ZOOM_KEYS)
        _latency(run)


@contextmanager
def stepping(run: RunDir, steps: int) -> Iterator[None]:
    """While the block runs, a step record a second is appended to the run's log, after the ``steps`` that it has."""
    done = threading.Event()

    def write() -> None:
        log, step = LogWriter(run.log_path, 1), steps
        while not done.wait(1.0):
            step += 1
            log.write(Step(**step_fields(step)))
        log.close()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        done.set()
        writer.join()


def _watch(what: str, argv: Sequence[str], size: Size, env: Mapping[str, str] | None = None, keys: bytes = b"") -> None:
    """Measure an active run in the app for a while, after some ``keys``; all processes of the program count."""
    app = Pty(argv, size, env)
    painted = app.read_bytes(PAINTED)
    app.read_for(4)
    app.write(keys)
    app.read_for(4)
    pids = process_tree(app.pid)
    before = sum(map(cpu, pids))
    received = app.read_for(SECONDS)
    share = (sum(map(cpu, pids)) - before) / SECONDS
    resident, proportional = (sum(map(measure, pids)) / 1e6 for measure in (rss, pss))
    print(
        f"{what}, {size[0]}x{size[1]}, active run for {SECONDS} s: {received / SECONDS / 1024:.2f} KB/s,"
        f" {share:.2%} of a core, {resident:.0f} MB resident, {proportional:.0f} MB proportional;"
        f" painted after {painted:.2f} s"
    )
    app.close()


def _latency(run: RunDir) -> None:
    for size in SIZES:
        app = Pty([MLA_TUI, "attach", run.id], size)
        app.read_for(4)
        for what, keys in KEYS.items():
            times, work = zip(*(app.press(keys[i % 2 :][:1]) for i in range(100)), strict=True)
            name = f"a key ({what}) to the first byte, {size[0]}x{size[1]}, active run"
            report(name, [1e3 * seconds for seconds in times], "ms")
            report(f"{name}, CPU time of the app", [1e3 * seconds for seconds in work], "ms")
        app.close()


def ended(home: Path, name: str, steps: int) -> RunDir:
    """Create a finished run as its supervisor leaves it, with history and log."""
    run = make_run(home, name, phase="finished", steps=steps)
    fill(run, steps)
    _save_index(run)
    return run


def _save_index(run: RunDir) -> None:
    log_index = LogIndex(run)
    log_index.catch_up()
    log_index.save()
    write_struct(run.state_path, replace(log_index.state, phase="finished"))


def _load(home: Path, steps: int) -> None:
    """Measure from exec until the charts are complete."""
    run = ended(home, f"long-{steps}", steps)
    for size in SIZES:
        results = []
        for _ in range(5):
            app = Pty([MLA_TUI, "attach", run.id], size)
            results.append(app.settle())
            memory = pss(app.pid)
            app.close()
        first, full = (statistics.median(s[i] for s in results) for i in (0, 1))
        print(
            f"app, {size[0]}x{size[1]}, an ended run of {steps} steps: first byte {first:.2f} s, charts complete"
            f" {full:.2f} s (median of 5), {results[-1].received / 1024:.1f} KB, {memory / 1e6:.0f} MB proportional"
        )


def _zoom(home: Path, steps: int) -> None:
    """Measure memory while zooming from all steps of a long run to single steps, panning and zooming out."""
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
            f" {peak(app.pid) / 1e6:.1f} MB while 40 keys zoom in, 40 pan back and 40 zoom out"
        )
        app.close()


def _long_log(home: Path) -> None:
    """Measure the memory for a log of a million lines, compared with a log of ten."""
    sizes = {}
    for lines in (10, 1_000_000):
        run = make_run(home, f"lines-{lines}", phase="finished", steps=10)
        with open(run.log_path, "wb", buffering=1 << 20) as log:
            for n in range(lines):
                line = Log(1.7e9 + n, 1, level="info", rank=0, text=f"line {n} printed by a library")
                log.write(encode(line) + b"\n")
        _save_index(run)
        app = Pty([MLA_TUI, "attach", run.id], (80, 24))
        app.settle()
        sizes[lines] = pss(app.pid) / 1e6
        app.close()
    few, many = sizes.values()
    print(f"a log of 1000000 lines: {many:.1f} MB proportional, {many - few:+.1f} MB compared with ten lines")
