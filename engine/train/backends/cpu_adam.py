"""DeepSpeed's C++ Adam, built at its first use and kept for all runs of this person.

torch guards such a folder by a file that outlives its maker: after a SIGKILL at the wrong moment, which may be that of
any load, every later run would wait for it without end. Here a lock of the kernel stands before it, and a file that is
found under that lock is a dead one's.
"""

from __future__ import annotations

import hashlib
import math
import os
import sys
from importlib.util import find_spec
from pathlib import Path

import torch

from engine.execution.compiler import user_cache_dir
from engine.host.process import Lock
from profiles.errors import UserError


def load_cpu_adam() -> None:
    """Load the op, building it first where need be. Raises ``UserError`` where no compiler or no disk lets it."""
    folder = user_cache_dir() / "torch_extensions" / build_name()
    lock = Lock(folder / "cpu_adam.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=math.inf)
    except OSError as error:
        raise UserError(
            f"{folder}: DeepSpeed's optimizer cannot be kept there: {error.strerror}; set XDG_CACHE_HOME to a"
            " directory you can write to"
        ) from None
    try:
        from deepspeed.ops.op_builder.cpu import CPUAdamBuilder

        (folder / "cpu_adam" / "lock").unlink(missing_ok=True)
        os.environ["TORCH_EXTENSIONS_DIR"] = str(folder)
        _prefer_own_ninja()
        CPUAdamBuilder().load(verbose=False)  # DeepSpeed asks again, and is given this one
    except RuntimeError as error:
        raise UserError(
            "deepspeed: its optimizer could not be built; the compiler's words stand above; try --backend torch"
        ) from error
    finally:
        lock.release()


def build_name() -> str:
    """What makes one build another: torch, where its headers lie, and the instructions that -march=native takes.

    Two environments that took turns in one folder would build anew at each turn.
    """
    told = Path("/proc/cpuinfo").read_text().splitlines()
    instructions = next((line for line in told if line.startswith(("flags", "Features"))), "")
    key = hashlib.sha256(f"{sys.prefix}\n{instructions}".encode()).hexdigest()[:12]
    return f"torch-{torch.__version__}-{key}"


def _prefer_own_ninja() -> None:
    """Let torch find the ninja that is installed beside it, with its environment activated or not.

    Two versions of ninja do not read each other's logs: where another comes along, everything is built again.
    """
    if find_spec("ninja"):
        import ninja

        os.environ["PATH"] = os.pathsep.join([ninja.BIN_DIR, os.environ.get("PATH", os.defpath)])


if __name__ == "__main__":
    load_cpu_adam()
