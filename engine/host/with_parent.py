"""Runs a module as ``python -m`` does, and ends the process when the one that started it does, however that happens.

``python -m engine.host.with_parent SCRATCH MODULE ARGUMENTS``. Its stdin is a pipe of which the parent keeps the other
end: the kernel closes that when the parent dies, also by SIGKILL, and on macOS too, which has no signal for it. Then it
also removes the folder ``SCRATCH``, which the parent would have removed.
"""

from __future__ import annotations

import os
import runpy
import shutil
import sys
import threading


def _end_with_stdin(scratch: str) -> None:
    while os.read(0, 1):
        pass
    shutil.rmtree(scratch, ignore_errors=True)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_stdin, args=(sys.argv[1],), daemon=True).start()
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
