"""Builds DeepSpeed's C++ Adam at its first use and caches it for all runs of this user.

torch guards its build directory with a lock file that outlives its process: after a SIGKILL during any load, every
later run would wait forever. Here a kernel lock (flock) comes first, so a lock file found while holding it was left by
a dead process.
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
from engine.host.instruction_sets import instruction_sets
from engine.host.process import Lock
from profiles.errors import UserError


def load_cpu_adam() -> None:
    """Load the op, and build it if needed. Raises ``UserError`` where it cannot be compiled or stored."""
    folder = _folder()
    lock = Lock(folder / "cpu_adam.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=math.inf)
    except OSError as error:
        raise UserError(
            f"{folder}: DeepSpeed's optimizer cannot be stored there: {error.strerror}; set XDG_CACHE_HOME to a"
            " directory you can write to"
        ) from None
    try:
        from deepspeed.ops.op_builder.cpu import CPUAdamBuilder

        (folder / "cpu_adam" / "lock").unlink(missing_ok=True)
        os.environ["TORCH_EXTENSIONS_DIR"] = str(folder)
        _prefer_own_ninja()
        CPUAdamBuilder().load(verbose=False)  # DeepSpeed loads it again and gets this one
    except RuntimeError as error:
        raise UserError(
            "deepspeed: its optimizer could not be built; see the compiler's output above; try --backend torch"
        ) from error
    finally:
        lock.release()


def is_built() -> bool:
    """Whether the op is there. Otherwise it is compiled first, for a minute or more, or by another run just now."""
    return (_folder() / "cpu_adam" / "cpu_adam.so").exists()


def _folder() -> Path:
    return user_cache_dir() / "torch_extensions" / build_name()


def build_name() -> str:
    """Return the name of the build's directory: torch's version, its environment, and the CPU's instruction sets.

    Two environments that share a directory would rebuild each time they alternate.
    """
    key = hashlib.sha256(f"{sys.prefix}\n{instruction_sets()}".encode()).hexdigest()[:12]
    return f"torch-{torch.__version__}-{key}"


def _prefer_own_ninja() -> None:
    """Put the ninja of this environment first in PATH, whether or not the environment is activated.

    Versions of ninja do not read each other's logs: another version would build everything again.
    """
    if find_spec("ninja"):
        import ninja

        os.environ["PATH"] = os.pathsep.join([ninja.BIN_DIR, os.environ.get("PATH", os.defpath)])


if __name__ == "__main__":
    load_cpu_adam()
