"""``make bench``: what the promises of speed and size come to on this machine. Medians; nothing here passes or fails.

Arguments name sections: ls, paint, launch, step, run, log, compare.
"""

from __future__ import annotations

import asyncio
import json
import os
import pty
import select
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.compare import bench_compare
from tests.bench.log import bench_log

MLA_TUI = str(Path(sys.executable).parent / "mla-tui")


def main() -> None:
    sections: dict[str, Callable[[Path], None]] = {
        "ls": bench_ls,
        "paint": bench_first_paint,
        "launch": bench_first_step,
        "step": bench_step,
        "run": bench_run,
        "log": bench_log,
        "compare": bench_compare,
    }
    for name in sys.argv[1:] or sections:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["MLA_TUI_HOME"] = folder
            sections[name](Path(folder))


def bench_ls(home: Path) -> None:
    _make_jobs(home, 100)
    times = [_wall([MLA_TUI, "ls"]) for _ in range(21)]
    _tell("mla-tui ls, 100 jobs", times, "s")


def bench_first_paint(home: Path) -> None:
    _make_jobs(home, 20)
    times = [_first_paint([MLA_TUI]) for _ in range(11)]
    _tell("first paint of the app, from exec", times, "s")


def bench_first_step(home: Path) -> None:
    times = []
    for _ in range(3):
        begun = time.time()
        job = _launch(home, "steps=2", "val_every=0", "save_every=0")
        times.append(_wait_for_step(job, 1) - begun)
        subprocess.run([MLA_TUI, "watch", job.name], stdout=subprocess.DEVNULL, check=True)
    _tell("launch to the first step of cpu_demo", times, "s")


def bench_step(home: Path) -> None:
    subprocess.run([MLA_TUI, "bench", "-p", "cpu_demo"], check=True)


def bench_run(home: Path) -> None:
    """A running cpu_demo with the app attached: the supervisor's cost, the way of a record, the app's bytes."""
    job = _launch(home, "steps=100000", "val_every=0", "save_every=0")
    _wait_for_step(job, 1)
    state = json.loads((job / "state.json").read_text())
    supervisor = state["supervisor"]["pid"]
    app = _Pty([MLA_TUI, "attach", job.name], 80, 24)
    app.read_for(5)
    seconds = 20
    before, app_before = _cpu(supervisor), _cpu(app.pid)
    latencies: list[float] = []
    sent = app.read_for(seconds, lambda: latencies.extend(_latency(job)))
    share = (_cpu(supervisor) - before) / seconds
    print(f"supervisor: {_rss(supervisor) / 1e6:.1f} MB resident, {share:.2%} of a core")
    print(f"app, 80x24: {_rss(app.pid) / 1e6:.1f} MB resident, {(_cpu(app.pid) - app_before) / seconds:.2%} of a core")
    print(f"app, 80x24: {sent / seconds / 1024:.2f} KB/s at the pty, four live panes")
    if latencies:
        _tell("a step record from the trainer to a client", latencies, "s")
    app.close()
    subprocess.run([MLA_TUI, "stop", "--no-save", job.name], check=True, stderr=subprocess.DEVNULL)


def _latency(job: Path) -> list[float]:
    """How old a few step records are when they arrive through the socket."""
    from engine.jobs.client import Link
    from engine.jobs.store import Job

    async def gather() -> list[float]:
        link = Link(Job(job))
        start = (await link.history([], 1))["at"]
        ages = []
        async for record in link.records(start):
            if record["kind"] == "step":
                ages.append(time.time() - record["t"])
            if len(ages) == 5:
                break
        return ages

    return asyncio.run(gather())


class _Pty:
    """A program in a terminal of its own."""

    def __init__(self, argv: list[str], columns: int, rows: int) -> None:
        import fcntl
        import termios

        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update(TERM="xterm-256color", COLORTERM="truecolor")
            time.sleep(0.02)  # until the parent has set the size
            os.execv(argv[0], argv)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read_for(self, seconds: float, meanwhile: Callable[[], object] | None = None) -> int:
        """Bytes that came within ``seconds``."""
        import threading

        thread = threading.Thread(target=meanwhile) if meanwhile else None
        if thread:
            thread.start()
        total, deadline = 0, time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self.fd], [], [], left)[0]:
                total += len(os.read(self.fd, 1 << 16))
        if thread:
            thread.join()
        return total

    def close(self) -> None:
        os.close(self.fd)
        os.waitpid(self.pid, 0)


def _first_paint(argv: list[str]) -> float:
    begun = time.perf_counter()
    app = _Pty(argv, 80, 24)
    seen = b""
    while b"mla-tui" not in seen:
        seen += os.read(app.fd, 1 << 16)
    took = time.perf_counter() - begun - 0.02
    app.close()
    return took


def _make_jobs(home: Path, count: int) -> None:
    state = {"phase": "finished", "step": 300, "steps": 300, "loss": 4.2, "started": 1.0, "attempt": 1}
    for number in range(count):
        folder = home / "jobs" / f"20261123-{number:06d}-cpu_demo"
        folder.mkdir(parents=True)
        (folder / "state.json").write_text(json.dumps({"id": folder.name, "name": folder.name, **state}))


def _launch(home: Path, *overrides: str) -> Path:
    flags = [word for text in (*overrides, f"train.out={home}/models") for word in ("-s", text)]
    answer = subprocess.run([MLA_TUI, "launch", "-p", "cpu_demo", *flags], capture_output=True, text=True, check=True)
    return home / "jobs" / answer.stdout.strip()


def _wait_for_step(job: Path, step: int) -> float:
    """When the record of ``step`` was written."""
    from engine.jobs.log import read_all

    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for _, record in read_all(job / "events.jsonl"):
            if record["kind"] == "step" and record["step"] >= step:
                return float(record["t"])
        time.sleep(0.02)
    raise TimeoutError(f"{job.name}: no step {step}")


def _wall(argv: list[str]) -> float:
    begun = time.perf_counter()
    subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begun


def _cpu(pid: int) -> float:
    """Seconds of processor time so far."""
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _tell(what: str, values: list[float], unit: str) -> None:
    median = statistics.median(values)
    print(f"{what}: median {median:.3f} {unit} (min {min(values):.3f}, max {max(values):.3f}, n {len(values)})")


if __name__ == "__main__":
    main()
