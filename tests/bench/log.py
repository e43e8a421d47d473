"""Measures the log and its socket: the cost of logging for a trainer, latency and throughput for a client, the memory
of a supervisor. Processes and sockets are real; a reporter stands in for the trainer.

Lower bounds, written before measuring:

- A record is one write(2) of 350 bytes to the page cache (2 to 4 us), one fstat and one pread for the line before it,
  and encoding its JSON (about 8 us in CPython): 15 us. Checking for commands is one stat; progress is due twice a
  second, so most calls only read the clock.
- A client receives a record half a poll interval of the log later (25 ms), plus two wake-ups.
- Rebuilding a history of a million steps: reading 340 MB 0.1 s, decoding 1.0 s, splitting lines and pairing them with
  offsets 0.4 s; 10 series at 0.04 us to take a value out, 0.02 to look for gaps, 0.04 for minimum, maximum and sum:
  1.0 s. Together 2.5 s.
- Attaching: 4 x 2 000 points of about 55 bytes are 440 KB; encoding them takes 30 ms. An ended run's history file is at
  most 4.8 MB: 5 ms to read and check; the rest of the log is at most 2 MB: 70 ms to parse.
- 24 series of 4 096 buckets of 48 bytes are 4.7 MB, for a run of any length.
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from engine.events.log import LogWriter
from engine.events.log_index import LogIndex
from engine.events.run_dir import RunDir
from engine.events.status import Launch, RunStatus
from engine.events.types import Progress, Step, Telemetry
from engine.host.process import Lock, boot_id, host_name, process_identity
from engine.host.struct_json import encode, write_struct
from engine.runs.client import RunClient
from engine.runs.store import RunStore
from engine.train.run_reporter import RunReporter
from profiles import registry
from tests.bench.measure import cpu, rss

PANES = ["loss", "device_used", "host_states", "tok_s"]
# A complete supervisor; it adopts this process as its trainer, because we hold the trainer's lock.
SUPERVISOR = "import sys; from engine.runs.__main__ import main; sys.exit(main())"


def step_fields(step: int) -> dict[str, Any]:
    """Return the fields of a step record as on a GPU."""
    noise = step * 2654435761 % 1000 / 1e4
    return {
        **{"step": step, "loss": 2.0 + noise, "lr": 3e-4 / 1.7, "grad_norm": 1.0 / (1.1 + noise)},
        **{"tokens": step * 196_608, "tok_s": 9830.2 + noise * 1000, "step_s": 1 + noise / 3, "data_s": 1e-3 / 3},
        **{"micro": 12, "accum": 8, "context": 2048, "device_peak": 9_663_676_416, "host_states": 12_298_195_968},
        "mfu": None,
    }


def make_run(home: Path, name: str | None = None, **state: Any) -> RunDir:
    usual: dict[str, Any] = {
        "phase": "running",
        "attempt": 1,
        "host": host_name(),
        "boot": boot_id(),
        "started": time.time(),
    }
    return RunStore(home).create(registry.load("cpu_demo"), Launch(name=name), RunStatus(**{**usual, **state}))


def fill(run: RunDir, steps: int) -> None:
    """Write a log with one step per second and one telemetry record per minute."""
    assert len(encode(Step(0.0, 1, **step_fields(1)))) > 250
    sizes = ("device_used", "device_total", "rss", "ram_used", "ram_total", "swap", "disk_free", "power_w", "temp_c")
    with open(run.log_path, "wb", buffering=1 << 20) as log:
        for step in range(1, steps + 1):
            log.write(encode(Step(1.7e9 + step + 0.123456, 1, **step_fields(step))) + b"\n")
            if step % 60 == 0:
                ranges: dict[str, Any] = {name: [1.5e10 + step, 1.6e10 + step] for name in sizes}
                log.write(encode(Telemetry(1.7e9 + step + 0.9, 1, **ranges)) + b"\n")


@contextmanager
def supervised(run: RunDir) -> Iterator[int]:
    """Run a supervisor for ``run``, with this process as its trainer; yield its pid."""
    lock = Lock(run.trainer_lock)
    assert lock.acquire()
    write_struct(run.trainer_identity_path, process_identity(os.getpid()))
    with open(run.console_path, "ab") as console:
        process = subprocess.Popen([sys.executable, "-c", SUPERVISOR, str(run.path)], stdout=console, stderr=console)
    try:
        while not run.socket_path.exists():
            if process.poll() is not None:
                raise RuntimeError(run.console_path.read_text())
            time.sleep(0.02)
        yield process.pid
    finally:
        process.kill()
        process.wait()
        lock.release()


def bench_log(home: Path) -> None:
    _logging(home)
    _throughput(home)
    _latency_and_memory(home)
    _crowd(home)
    _attach(home, 1_000_000)
    _month(home)


def _logging(home: Path) -> None:
    """Measure what logging one step costs the trainer: record, commands and progress."""
    run = make_run(home)
    with supervised(run):
        reporter = RunReporter(run, 1)
        times = []
        for step in range(1, 3001):
            fields = step_fields(step)
            started = time.perf_counter()
            reporter.commands()
            reporter.progress(Progress(step=step, micro_done=1, micro_of=8, tok_s=9830.0))
            reporter.record(Step(**fields))
            times.append(time.perf_counter() - started)
            time.sleep(0.001)
        reporter.close()
    median, mean = statistics.median(times), statistics.fmean(times)
    high = sorted(times)[int(len(times) * 0.99)]
    print(f"logging a step: median {median * 1e6:.0f} us, mean {mean * 1e6:.0f}, p99 {high * 1e6:.0f}; n 3000")


async def _count(run: RunDir, last: int, ages: list[float]) -> list[int]:
    steps = []
    async for _, event in RunClient(run).events(0, live=False):
        if isinstance(event, Step):
            steps.append(event.step)
            ages.append(time.time() - event.t)
            if event.step == last:
                break
    return steps


def _throughput(home: Path) -> None:
    """Send 500 records a second for 20 s: all must arrive once and in order."""
    run, last = make_run(home), 10_000
    with supervised(run) as pid:
        before = cpu(pid)
        writer = threading.Thread(target=_write_at, args=(run, last, 500.0))
        writer.start()
        ages: list[float] = []
        received = asyncio.run(_count(run, last, ages))
        writer.join()
        share = (cpu(pid) - before) / (last / 500)
    assert received == list(range(1, last + 1)), "records were lost"
    print(
        f"500 records/s for 20 s: {len(received)} of {last} arrived, age median {statistics.median(ages) * 1e3:.0f} ms,"
        f" max {max(ages) * 1e3:.0f}; supervisor {share:.1%} of a core"
    )


def _write_at(run: RunDir, count: int, rate: float) -> None:
    log, started = LogWriter(run.log_path, 1), time.monotonic()
    for step in range(1, count + 1):
        log.write(Step(**step_fields(step)))
        time.sleep(max(0.0, started + step / rate - time.monotonic()))
    log.close()


def _latency_and_memory(home: Path) -> None:
    """Measure one step per second for 30 s with one client."""
    run, last = make_run(home), 30
    fill(run, 20_000)  # full series
    index = LogIndex(run)
    index.catch_up()
    index.save()
    write_struct(run.state_path, replace(run.state(), at=index.offset))
    with supervised(run) as pid:
        time.sleep(2)
        before = cpu(pid)
        writer = threading.Thread(target=_write_from, args=(run, 20_001, last, 1.0))
        writer.start()
        ages: list[float] = []

        async def follow() -> None:
            async for _, event in RunClient(run).events(index.offset, live=False):
                if isinstance(event, Step):
                    ages.append(time.time() - event.t)
                    if len(ages) == last:
                        break

        asyncio.run(follow())
        writer.join()
        share = (cpu(pid) - before) / last
        print(
            f"a record from trainer to client: median {statistics.median(ages) * 1e3:.0f} ms, max"
            f" {max(ages) * 1e3:.0f} (n {last}); supervisor at a step a second, full series: {rss(pid) / 1e6:.1f} MB,"
            f" {share:.2%} of a core"
        )


def _write_from(run: RunDir, first: int, count: int, rate: float) -> None:
    log = LogWriter(run.log_path, 1)
    for step in range(first, first + count):
        time.sleep(1 / rate)
        log.write(Step(**step_fields(step)))
    log.close()


CROWD = """
import select, socket, sys
path, count, start = sys.argv[1], int(sys.argv[2]), sys.argv[3]
poller, sockets = select.poll(), {}
for _ in range(count):
    s = socket.socket(socket.AF_UNIX)
    s.connect(path)
    s.sendall(b'{"id":1,"method":"subscribe","params":{"from":%s}}\\n' % start.encode())
    poller.register(s, select.POLLIN)
    sockets[s.fileno()] = s
print("connected", flush=True)
while True:
    for fd, _ in poller.poll():
        sockets[fd].recv(1 << 16)
"""


def _crowd(home: Path) -> None:
    """Compare steps of 100 ms of arithmetic with 50 clients (10 of them stopped) and without clients, alternating."""
    run = make_run(home)
    fill(run, 2000)
    ratios, sizes, shares = [], [], []
    with supervised(run) as pid:
        reporter = RunReporter(run, 1)
        step = 2000
        for _ in range(6):
            without = _steps(reporter, step, 25)
            crowds = [_start_crowd(run, 40), _start_crowd(run, 10)]
            crowds[1].send_signal(signal.SIGSTOP)
            before, started = cpu(pid), time.monotonic()
            with_crowd = _steps(reporter, step + 25, 25)
            shares.append((cpu(pid) - before) / (time.monotonic() - started))
            step += 50
            sizes.append(rss(pid))
            for crowd in crowds:
                crowd.kill()
                crowd.wait()
            ratios.append(statistics.median(with_crowd) / statistics.median(without))
            time.sleep(0.5)
        reporter.close()
    values = ", ".join(f"{r:.3f}" for r in ratios)
    print(
        f"step time with 50 clients, 10 stopped, relative to none: median of pairs {statistics.median(ratios):.3f}"
        f" ({values}); supervisor at most {max(sizes) / 1e6:.1f} MB, {statistics.median(shares):.1%} of a core"
    )


def _start_crowd(run: RunDir, count: int) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-c", CROWD, str(run.socket_path), str(count), str(run.log_path.stat().st_size)]
    crowd = subprocess.Popen(argv, stdout=subprocess.PIPE)
    assert crowd.stdout is not None and crowd.stdout.readline() == b"connected\n"
    return crowd


def _steps(reporter: RunReporter, first: int, count: int) -> list[float]:
    times = []
    for step in range(first + 1, first + count + 1):
        started = time.perf_counter()
        total = 0
        for n in range(1_500_000):
            total += n
        reporter.commands()
        reporter.progress(Progress(step=step, micro_done=1, micro_of=8, tok_s=9830.0))
        reporter.record(Step(**step_fields(step)))
        times.append(time.perf_counter() - started)
    return times


def _attach(home: Path, steps: int) -> None:
    """Measure attaching with four panes to a long run: ended with and without history file, and running."""
    run = make_run(home, phase="finished")
    fill(run, steps)
    started = time.perf_counter()
    log_index = LogIndex(run)
    log_index.catch_up()
    print(
        f"{steps} steps, {run.log_path.stat().st_size / 1e6:.0f} MB of log: history built from the log in"
        f" {time.perf_counter() - started:.1f} s"
    )
    log_index.save()
    write_struct(run.state_path, replace(log_index.state, phase="finished"))
    print(f"history.bin: {(run.path / 'history.bin').stat().st_size / 1e6:.1f} MB")
    _report_attach("an ended run", run)
    write_struct(run.state_path, replace(log_index.state, phase="running", host=host_name()))
    with supervised(run) as pid:
        _report_attach("a running run", run)
        print(f"its supervisor: {rss(pid) / 1e6:.1f} MB")
    started = time.perf_counter()
    reporter = RunReporter(run, 2)
    reporter.events_to_replay()
    print(f"a trainer reads commands and edits from that log: {time.perf_counter() - started:.2f} s")
    reporter.close()


def _report_attach(what: str, run: RunDir) -> None:
    times, size = [], 0

    async def attach() -> int:  # its answer stays inside: asyncio formats the result of a main task
        answer = await RunClient(run).history(PANES)
        times.append(time.perf_counter() - started)
        return len(msgspec.json.encode(answer))

    for _ in range(11):
        started = time.perf_counter()
        size = asyncio.run(attach())
    print(
        f"attach to {what}, four panes: median {statistics.median(times):.3f} s (min {min(times):.3f}, max"
        f" {max(times):.3f}, n 11), {size / 1e3:.0f} KB"
    )


MONTH = """
import resource, sys, time
from pathlib import Path
from engine.events.history import History
from engine.events.types import Step, Telemetry
from tests.bench.log import step_fields
history, base = History(Path("none")), 0
def rss():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6
for second in range(1, 2_600_001):
    history.add_events([(second, Step(float(second), 1, **step_fields(second)))])
    history.sample(Telemetry(float(second), device_used=9e9, rss=1e9 + second, ram_used=2e10))
    if second % 5000 == 0:
        history.query(["loss", "device_used", "host_states", "tok_s"], 2000)
    if second in (100_000, 650_000, 1_300_000, 2_600_000):
        print(f"{second} steps: {rss():.1f} MB", flush=True)
"""


def _month(home: Path) -> None:
    """Simulate a month of one step and one sample per second, with occasional history queries."""
    result = subprocess.run([sys.executable, "-c", MONTH], capture_output=True, text=True, check=True)
    print("a simulated month: " + "; ".join(result.stdout.split("\n")).rstrip("; "))
