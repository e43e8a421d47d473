"""Checks whether this machine can hold a run for weeks. It imports no torch and changes nothing."""

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
    state_dir.free_space,
    state_dir.clock,
    state_dir.versions,
    state_dir.hooks_file,
    machine.tmux,
    machine.memory,
    machine.load,
    libraries.python_and_torch,
    libraries.cuda,
    libraries.backends,
)


def run_checks(store: RunStore) -> list[Finding]:
    """Return the findings of every check, in order. A check that raises becomes a warning."""
    findings: list[Finding] = []
    for check in CHECKS:
        try:
            findings.extend(check(store))
        except Exception as error:
            name = check.__name__.replace("_", " ")
            findings.append(Finding("warn", name, f"check failed: {type(error).__name__}: {error}"))
    return findings
