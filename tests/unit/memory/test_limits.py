"""A process's memory is limited by the lowest of free RAM, cgroup and rlimit."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from engine.memory.limits import host_capacity

ASK = "from engine.memory.limits import host_capacity; print(host_capacity())"
SAMPLE = """
from pathlib import Path; from engine.runs.telemetry import Sensors
sample = Sensors(Path()).sample(); print(sample["ram_used"], sample["ram_total"])
"""
CGROUP = Path("/sys/fs/cgroup/memory" if Path("/sys/fs/cgroup/memory").is_dir() else "/sys/fs/cgroup")
LIMIT = "memory.limit_in_bytes" if CGROUP.name == "memory" else "memory.max"


def capacity_of_a_process(*before: str, limit: int | None = None) -> int:
    def narrow() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    argv = [*before, sys.executable, "-c", ASK]
    return int(subprocess.run(argv, capture_output=True, text=True, check=True, preexec_fn=narrow).stdout)


def test_without_limits_it_is_the_free_memory() -> None:
    own = psutil.Process().memory_info().rss
    assert host_capacity() <= psutil.virtual_memory().total
    assert host_capacity() > own


def test_an_address_space_limit_counts() -> None:
    assert (1 << 29) * 0.5 < capacity_of_a_process(limit=1 << 29) < 1 << 29


def test_a_cgroup_counts() -> None:
    folder = CGROUP / f"mla-tui-limits-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"a memory cgroup cannot be made here: {error}")
    try:
        if not (folder / LIMIT).exists():
            pytest.skip("the memory controller is not there")
        (folder / LIMIT).write_text(str(1 << 28))
        found = capacity_of_a_process("sh", "-c", f'echo $$ > {folder}/cgroup.procs; exec "$@"', "sh")
        assert (1 << 28) * 0.8 < found <= 1 << 28  # though shared pages count as resident, and not in the cgroup
        into_it = ["sh", "-c", f'echo $$ > {folder}/cgroup.procs; exec "$@"', "sh", sys.executable, "-c", SAMPLE]
        used, total = map(int, subprocess.run(into_it, capture_output=True, check=True).stdout.split())
        assert total == 1 << 28 and 0 < used < total  # what the monitor and the alerts count with
    finally:
        folder.rmdir()
