"""Looking at this machine before it has to hold a run for weeks. Nothing here takes torch along or changes anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from engine.checks import libraries, logout, machine, state_dir
from engine.checks.finding import Finding
from engine.runs.store import RunStore

Check = Callable[[RunStore], Iterable[Finding]]

CHECKS: tuple[Check, ...] = (
    logout.lingering,
    logout.kill_user_processes,
    logout.after_a_reboot,
    state_dir.file_system,
    state_dir.permissions,
    state_dir.space,
    state_dir.clock,
    state_dir.other_versions,
    state_dir.hooks_file,
    machine.tmux,
    machine.memory,
    libraries.python_and_torch,
    libraries.cuda,
    libraries.backends,
)


def examine(store: RunStore) -> list[Finding]:
    """Every check's findings, in order. A check that cannot be made is a warning, and holds up no other."""
    findings: list[Finding] = []
    for check in CHECKS:
        try:
            findings.extend(check(store))
        except Exception as error:
            name = check.__name__.replace("_", " ")
            findings.append(Finding("warn", name, f"could not be looked at: {type(error).__name__}: {error}"))
    return findings
