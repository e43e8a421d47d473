"""Checks that out-of-memory errors are recognized: real ones of torch and numpy, others by their message."""

from __future__ import annotations

import subprocess
import sys

import pytest

from engine.train.oom.recognize import recognize
from engine.train.phases import BACKWARD, FORWARD

REAL = """
import resource, sys
import {library} as lib
from engine.train.oom.recognize import recognize
size = 1 << 36
resource.setrlimit(resource.RLIMIT_AS, (1 << 35, 1 << 35))
try:
    {allocate}
except Exception as error:
    failure = recognize(error, "forward")
    print(failure.wanted if failure else repr(error))
"""


@pytest.mark.parametrize(
    ("library", "allocate", "wanted"),
    [("torch", "lib.empty(size, dtype=lib.uint8)", 1 << 36), ("numpy", "lib.empty(size, lib.uint8)", 1 << 36)],
)
def test_a_real_error_is_recognized(library: str, allocate: str, wanted: int) -> None:
    program = REAL.format(library=library, allocate=allocate)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == str(wanted), done.stderr


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 15.47 GiB", 5 << 29),
        ("CUDA error: out of memory\nCUDA kernel errors might be reported later", None),
        ("CUDA driver error: out of memory", None),
        ("Triton Error [CUDA]: out of memory", None),
        ("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)", None),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", None),
        ("NCCL error: unhandled cuda error, Cuda failure 2 'out of memory'", None),
        ("[metal::malloc] Attempting to allocate 8589934592 bytes which is greater than the maximum", 1 << 33),
        ("[malloc_or_wait] Unable to allocate 512 bytes.", 512),
    ],
)
def test_an_error_is_recognized_by_its_message(text: str, wanted: int | None) -> None:
    failure = recognize(RuntimeError(text), BACKWARD)
    assert failure is not None
    assert (failure.where, failure.wanted, failure.text) == (BACKWARD, wanted, text.splitlines()[0])


@pytest.mark.parametrize(
    "error",
    [RuntimeError("mat1 and mat2 shapes cannot be multiplied (4x8 and 9x8)"), ValueError("malloc"), KeyError(1)],
)
def test_other_errors_are_not_recognized(error: Exception) -> None:
    assert recognize(error, FORWARD) is None


def test_pythons_memory_error_is_recognized() -> None:
    failure = recognize(MemoryError(), FORWARD)
    assert failure is not None and failure.text == "MemoryError"
