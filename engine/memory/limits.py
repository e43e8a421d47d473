"""Computes how much host memory a process can use: free RAM, within its cgroup and rlimit."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_UNLIMITED = 1 << 60
# Address space that a trainer maps for torch's libraries and never touches: 366 MiB measured, on a CPU with one thread.
UNTOUCHED = 350 << 20
# Of the rest of an address space, what lies between large tensors in the heap and cannot be joined again: it is not
# resident, but counts against the limit. At 1.35 times the forecast half the runs ran out of memory (docs/log.md).
HOLES = 0.25


def host_capacity(pid: int | None = None) -> int:
    """Return the bytes of RAM that process ``pid`` (None: this one) can hold, its resident memory included."""
    import psutil

    process = psutil.Process(pid)
    own = process.memory_info()
    total, free_now = host_memory(process.pid)
    available = [free_now]
    if (address_space := address_space_limit(pid)) is not None:
        free = _free_in_heap() if pid is None else 0
        available.append(address_space - own.vms + free)
    # Pages of libraries are resident and may count for another cgroup: never more than the limit that a user has set.
    return min(total, int(own.rss + max(0, min(available))))


def host_memory(pid: int | None = None, ranks: int | None = None, freed: int = 0) -> tuple[int, int]:
    """Return (total, free) bytes of RAM within the cgroups of process ``pid`` (None: this one).

    ``ranks``: also within what so many trainers of this host can hold under this process's ``ulimit -v``. ``freed``:
    bytes that another program is about to free.
    """
    import psutil

    memory, limits = psutil.virtual_memory(), _cgroup_limits(os.getpid() if pid is None else pid)
    total = min([memory.total, *(limit for limit, _ in limits)])
    free = max(0, min([memory.available, *(limit - used for limit, used in limits)]))
    free = min(total, free + freed)
    if ranks is not None and (limit := address_space_limit()) is not None:
        addressable = max(0, limit - UNTOUCHED) * ranks
        return min(total, addressable), min(free, int(addressable * (1 - HOLES)))
    return total, free


def address_space_limit(pid: int | None = None) -> int | None:
    """Return the soft limit on the address space of process ``pid`` (``ulimit -v``); None without a limit, or where it
    is unknown."""
    import psutil

    try:
        import resource

        soft, _ = psutil.Process(pid).rlimit(resource.RLIMIT_AS)
    except (ImportError, AttributeError, OSError):
        return None
    return int(soft) if 0 <= soft < _UNLIMITED else None


class _MallInfo(ctypes.Structure):
    """glibc's ``struct mallinfo2`` (mallinfo(3))."""

    _names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = tuple((name, ctypes.c_size_t) for name in _names.split())


def _free_in_heap() -> int:
    """Return the bytes of freed heap that the C library still holds: malloc reuses them."""
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError):
        return 0
    mallinfo.restype = _MallInfo
    return int(mallinfo().fordblks)


def _cgroup_limits(pid: int) -> list[tuple[int, int]]:
    """Return (limit, used) of each memory cgroup of ``pid``. Reclaimable page cache does not count as used."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            names, root = ("memory.max", "memory.current", "inactive_file"), _CGROUPS
        elif "memory" in controllers.split(","):
            names, root = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"), _CGROUPS / "memory"
        else:
            continue
        folder = root / path.lstrip("/")
        for level in (folder, *folder.parents):
            if level == root.parent:
                break
            with contextlib.suppress(OSError, ValueError):
                limit = int((level / names[0]).read_text())  # "max" is not a number
                used = int((level / names[1]).read_text()) - _field(level / "memory.stat", names[2])
                if limit < _UNLIMITED:
                    found.append((limit, max(0, used)))
    return found


def _field(file: Path, name: str) -> int:
    for line in file.read_text().splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0
