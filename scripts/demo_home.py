"""A temporary home for the runs that pictures show: small ones of the built-in corpus, ended with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).parents[1]
T = TypeVar("T")


class DemoHome:
    """Runs commands in the home, and launches runs there."""

    def __init__(self, home: str) -> None:
        self.home = home
        self.command = Path(sys.executable).parent / "mla-tui"
        self.env = {
            **os.environ,
            **{"MLA_TUI_HOME": home, "XDG_CONFIG_HOME": f"{home}/config", "COLORTERM": "truecolor"},
            "OMP_NUM_THREADS": "1",  # steps stay quick beside other programs
        }

    def run(self, *args: str) -> str:
        """Run a command to its end and return what it prints. Raise ``CalledProcessError``."""
        result = subprocess.run(
            [self.command, *args], env=self.env, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
        )
        return result.stdout.strip()

    def launch(self, name: str, *overrides: str) -> None:
        usual = (f"train.out={self.home}/models", "sequences=4", "micro=4", "context=64", "val_every=10")
        flags = [word for text in (*usual, *overrides) for word in ("-s", text)]
        self.run("launch", "-p", "cpu_demo", "--name", name, *flags)


def wait_for(what: str, poll: Callable[[], T | None], timeout: float = 180.0) -> T:
    deadline = time.monotonic() + timeout
    while not (found := poll()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout:g} s for {what}")
        time.sleep(0.1)
    return found


@contextmanager
def demo_home() -> Iterator[DemoHome]:
    """Yield the home; afterwards its runs are stopped and it is removed."""
    with tempfile.TemporaryDirectory(prefix="mla-") as folder:
        home = DemoHome(folder)
        try:
            yield home
        finally:
            for summary in json.loads(home.run("ls", "--json")):
                if summary["ended"] is None:
                    home.run("stop", "--no-save", summary["id"])
                    home.run("watch", summary["id"])
