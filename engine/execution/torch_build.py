"""Finds out what the installed torch is built for, without importing it into this process."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_ARCHITECTURES = "import torch; print(getattr(torch._C, '_cuda_getArchFlags', str)() or '')"
_TIMEOUT = 60.0  # seconds; importing torch takes two, from a slow disk many more


def torch_cuda_version() -> tuple[int, int] | None:
    """Return the CUDA version that the installed torch is built for."""
    found = find_spec("torch")
    if found is None or found.origin is None:
        return None
    text = (Path(found.origin).parent / "version.py").read_text(encoding="utf-8")
    match = re.search(r"^cuda\b.*?=\s*['\"](\d+)\.(\d+)", text, re.MULTILINE)
    return (int(match[1]), int(match[2])) if match else None


@cache
def torch_architectures() -> tuple[str, ...]:
    """Return the GPU architectures that the installed torch has code for, such as ("sm_90", "sm_120", "compute_120").

    A child process imports torch for it, which takes about two seconds. Empty where torch does not say.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _ARCHITECTURES],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(done.stdout.split())


def runs_on(built: Sequence[str], major: int, minor: int) -> bool:
    """Return whether code ``built`` for some architectures runs on a GPU of compute capability ``major.minor``.

    Machine code (sm) runs on later minors of its major; PTX (compute) is compiled by the driver for any later GPU. Code
    for one GPU alone (sm_90a) and for a family (sm_100f) counts as that of its number.
    """
    for name in built:
        kind, _, digits = name.rstrip("af").partition("_")
        if not digits.isdigit():
            continue
        number = divmod(int(digits), 10)
        if number <= (major, minor) and (kind == "compute" or number[0] == major):
            return True
    return False
