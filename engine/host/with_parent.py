"""Runs a module as ``python -m`` does, and ends the process when the one that started it does, however that happens.

``python -m engine.host.with_parent MODULE ARGUMENTS``. Its stdin is a pipe of which the parent keeps the other end: the
kernel closes that when the parent dies, also by SIGKILL, and on macOS too, which has no signal for it.
"""

from __future__ import annotations

import os
import runpy
import sys
import threading


def _end_with_stdin() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
