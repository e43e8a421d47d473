"""Why a trainer died, from what the kernel tells: exit status, signal, the counters of its out-of-memory killer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from engine.host.process import signal_name

_OOM_KILL = re.compile(rb"^oom_kill (\d+)$", re.MULTILINE)
_MACHINE = Path("/proc/vmstat")
IN_CGROUP = "killed by the kernel for want of memory: the limit of its cgroup, or the machine's, was reached"
ON_MACHINE = "killed by SIGKILL while the kernel killed for want of host memory: most likely it ran out of RAM"


@dataclass(frozen=True, slots=True)
class ExitReason:
    """``code`` is the exit status and ``signal`` a name such as SIGKILL; both None where nobody could tell."""

    code: int | None
    signal: str | None
    why: str
    out_of_memory: bool = False


class OomKillCounter:
    """Counts the kernel's out-of-memory kills since it was made: in the cgroup of ``pid``, or else on the machine."""

    def __init__(self, pid: int) -> None:
        self._cgroup = _counter_of(pid)
        self._before = self._read()

    def verdict(self) -> str | None:
        """What to say of a death by SIGKILL; None where the kernel killed nothing that it could have been.

        A cgroup counts every kill of its own, also one for want of the machine's memory, so where it answers the
        machine's counter is not asked: it rises for kills in any other container.
        """
        (cgroup, machine), (cgroup_before, machine_before) = self._read(), self._before
        if cgroup is not None and cgroup_before is not None:
            return IN_CGROUP if cgroup > cgroup_before else None
        return ON_MACHINE if (machine or 0) > (machine_before or 0) else None

    def _read(self) -> tuple[int | None, int | None]:
        return _count(self._cgroup), _count(_MACHINE)


def death(code: int | None, kills: OomKillCounter | None, console: Path) -> ExitReason:
    """The death of a trainer that could not say anything itself.

    ``code`` is as ``Popen.wait`` gives it (negative: the signal), or None for a process that was not our child.
    """
    killed = code is None or code == -9 or code > 0  # above 0: of several ranks, a launcher whose rank was killed
    if killed and kills is not None and (why := kills.verdict()):
        return ExitReason(None if code is None or code < 0 else code, "SIGKILL", why, out_of_memory=True)
    if code is None:
        return ExitReason(None, None, "killed, cause unknown")
    if code < 0:
        return ExitReason(None, signal_name(-code), f"killed by {signal_name(-code)}")
    return ExitReason(code, None, f"ended with code {code}; see {console}")


def _counter_of(pid: int) -> Path | None:
    """The file that counts kills in the cgroup of ``pid``, version 2 or 1; None where there is none to be seen."""
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
    """The kills that ``file`` counts; None where it cannot be read (the cgroup went with its last process)."""
    try:
        found = _OOM_KILL.search(file.read_bytes()) if file else None
    except OSError:
        return None
    return int(found[1]) if found else None
