"""Starts the ``mla-tui`` command, unless something on Python's path hides one of its packages.

The names of the packages are ordinary words. A folder of ``PYTHONPATH`` with a ``model.py`` or a package ``data`` in it
would be imported in their place.
"""

from __future__ import annotations

import sys  # nothing else here: Ctrl-C while a module loads is answered only within main

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

PACKAGES = ("tui", "engine", "model", "data", "profiles")


def main() -> int:
    """Run the command and return its exit status; 1, with a line that says why, if it cannot be run."""
    try:
        if problem := hidden_package():
            print(f"mla-tui: {problem}", file=sys.stderr)
            return 1
        from tui.cli.main import main as run

        try:
            return run()
        finally:
            _end_at_ctrl_c()
    except KeyboardInterrupt:  # before the command began, or after it ended
        return 130


def _end_at_ctrl_c() -> None:
    """From now on Ctrl-C ends the process without a word: the command is done, and torch takes a while to unload."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_DFL)


def hidden_package() -> str:
    """Return which package another module of the same name hides, and the way out; empty if none is hidden.

    Nothing is imported. The packages lie side by side, so the one that is elsewhere is not ours.
    """
    from collections import Counter

    found = {name: path for name in PACKAGES if (path := _path(name)) is not None}
    folders = Counter(path.parent for path in found.values())
    ours = folders.most_common(1)[0][0] if folders else None
    for name, path in found.items():
        if path.parent != ours:
            return (
                f"{str(path)!r} hides the package {name} of mla-tui; start it without that folder on Python's path,"
                " for example: env -u PYTHONPATH mla-tui"
            )
    return ""


def _path(name: str) -> Path | None:
    """Return the file or folder that ``import name`` would load, None if there is none.

    A folder without ``__init__.py`` hides nothing.
    """
    from importlib.machinery import PathFinder
    from pathlib import Path

    spec = PathFinder.find_spec(name)
    if spec is None or spec.origin is None:
        return None
    origin = Path(spec.origin)
    return origin.parent if spec.submodule_search_locations else origin


if __name__ == "__main__":
    sys.exit(main())
