"""Runs the app in this terminal, and returns the exit code of the command that started it."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from tui.app.terminal.garbage import collect_once_started

if TYPE_CHECKING:
    from engine.runs.store import RunStore


def run_app(
    store: RunStore,
    run_id: str | None = None,
    *,
    read_only: bool = False,
    low_bandwidth: bool = False,
    first_start: bool = False,
) -> int:
    """Run the app in this terminal until the user quits or the terminal closes, and return the exit code.

    ``first_start``: propose a profile for this machine first. Raises ``UserError`` if there is no run ``run_id``, or no
    terminal to draw on.
    """
    collect_once_started()  # before Textual is imported

    from tui.app.app import MlaApp
    from tui.app.settings import load
    from tui.app.terminal.allocator import return_freed_memory
    from tui.app.terminal.input_bytes import accept_any_bytes
    from tui.app.terminal.tty import check_terminal, exit_with_terminal

    check_terminal()
    return_freed_memory()
    accept_any_bytes()
    for name in ("COLUMNS", "LINES"):
        os.environ.pop(name, None)  # if exported, they would override every change of the terminal's size
    settings, settings_errors = load()
    for line in settings_errors:
        print(f"mla-tui: {line}", file=sys.stderr)
    if low_bandwidth:
        settings = replace(settings, low_bandwidth=True)
    app = MlaApp(
        store,
        run_id,
        settings=settings,
        settings_errors=settings_errors,
        read_only=read_only,
        first_start=first_start and not read_only,
    )
    with exit_with_terminal(app, sys.stdin.fileno()) as terminal:
        app.run()
    return terminal.exit_code
