"""Finds out why a trainer exited: from its exit status, its signal and the kernel's out-of-memory kill counters."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from engine.events.exit_codes import EXIT_RETRY
from engine.host.process import signal_name
from profiles.printable import one_line
from profiles.reader import open_regular

_OOM_KILL = re.compile(rb"^oom_kill (\d+)$", re.MULTILINE)
_MACHINE = Path("/proc/vmstat")
_REPORT_BYTES = 1 << 16  # at the end of console.log, in which a launcher's report is looked for
OOM_IN_CGROUP = "killed by the kernel, out of memory: the limit of its cgroup, or the machine's, was reached"
OOM_ON_MACHINE = "killed (SIGKILL) while the kernel was killing for host memory; most likely it ran out of RAM"


@dataclass(frozen=True, slots=True)
class ExitReason:
    """``code`` is the exit status and ``signal`` a name such as SIGKILL; both are None where neither is known."""

    code: int | None
    signal: str | None
    why: str
    out_of_memory: bool = False


# A trainer that exits by itself logs why, so one that did not was killed or crashed. The kernel tells the exit status
# only to the process that started it.
UNSEEN = ExitReason(None, None, "killed or crashed while no supervisor was running; its exit status is not known")
ADOPTED = ExitReason(
    None, None, "killed or crashed; its exit status is not known, because its supervisor was restarted before"
)


class OomKillCounter:
    """Counts the kernel's out-of-memory kills since it was created: in the cgroup of ``pid``, else on the machine."""

    def __init__(self, pid: int) -> None:
        self._cgroup = _counter_file(pid)
        self._before = self._read()

    def reason(self) -> str | None:
        """Return why a process killed by SIGKILL was out of memory; None where the kernel killed no candidate.

        A cgroup counts every kill among its processes, also those for the machine's memory. So where it can be read,
        the machine's counter is ignored: that one also rises for kills in other containers.
        """
        (cgroup, machine), (cgroup_before, machine_before) = self._read(), self._before
        if cgroup is not None and cgroup_before is not None:
            return OOM_IN_CGROUP if cgroup > cgroup_before else None
        return OOM_ON_MACHINE if (machine or 0) > (machine_before or 0) else None

    def _read(self) -> tuple[int | None, int | None]:
        return _count(self._cgroup), _count(_MACHINE)


def exit_reason(
    code: int | None, oom_kills: OomKillCounter | None, console: Path, rank_zero: int | None = None
) -> ExitReason:
    """Return why a trainer that could not log its own exit ended.

    ``code`` is what ``Popen.wait`` returns (negative: the signal), or None for a process that is not our child.
    ``rank_zero``: the pid of rank 0 where ``code`` is that of its launcher.
    """
    killed = code is None or code == -9 or code > 0  # above 0: of several ranks, the launcher of a killed rank
    if killed and oom_kills is not None and (why := oom_kills.reason()):
        return ExitReason(None if code is None or code < 0 else code, "SIGKILL", why, out_of_memory=True)
    if code is None:
        return ADOPTED
    if code < 0:
        return ExitReason(None, signal_name(-code), f"killed ({signal_name(-code)})")
    if rank_zero is not None and (signal := _signal_of_rank(console, rank_zero)):
        return ExitReason(code, signal, f"rank 0 was killed ({signal})")
    if code == EXIT_RETRY and (said := _said(console)):
        return ExitReason(code, None, said)
    meaning = f", as after {_signal_of(code)}" if code > 128 else ""
    return ExitReason(code, None, f"exited with code {code}{meaning}; see {console}")


def _said(console: Path) -> str | None:
    """Return what a trainer that could not open its log has said last; None where that was something else."""
    *_, last = [b"", *_end_of(console).splitlines()]
    run, _, text = last.decode("utf-8", "replace").partition(": ")
    return one_line(text) if text and run == console.parent.name else None


def _signal_of_rank(console: Path, pid: int) -> str | None:
    """Return the signal that torchrun, in its output, says that the process ``pid`` died of."""
    found = re.findall(rb"\((SIG[A-Z0-9]+)\) received by PID %d\b" % pid, _end_of(console))
    return found[-1].decode() if found else None


def _end_of(console: Path) -> bytes:
    """Return the end of a trainer's output; empty where it cannot be read."""
    try:
        with open_regular(console) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _REPORT_BYTES))
            return file.read()
    except OSError:
        return b""


def _signal_of(code: int) -> str:
    """Return the signal that an exit code above 128 stands for: 128 + n of a shell, 256 - n of a launcher."""
    return signal_name(code - 128 if code <= 192 else 256 - code)


def _counter_file(pid: int) -> Path | None:
    """The file that counts kills in the cgroup of ``pid``, version 2 or 1; None where there is none."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            file = Path(f"/sys/fs/cgroup{path}/memory.events")
        elif "memory" in controllers.split(","):
            file = Path(f"/sys/fs/cgroup/memory{path}/memory.oom_control")
        else:
            continue
        if file.is_file():
            return file
    return None


def _count(file: Path | None) -> int | None:
    """The kills that ``file`` counts; None where it cannot be read (a cgroup vanishes with its last process)."""
    try:
        found = _OOM_KILL.search(file.read_bytes()) if file else None
    except OSError:
        return None
    return int(found[1]) if found else None
