"""Makes the standard streams safe to use, whatever a shell has connected them to.

A descriptor that is closed would make ``sys.stdout`` None, and the next file that is opened would take its number. An
error of writing would not say what could not be written, or come only when Python flushes at exit.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, TextIO, cast

from profiles.errors import OutputError


class _Output(io.FileIO):
    """Standard output: an error of writing names it. That its reader is gone stays a ``BrokenPipeError``."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"standard output: {error.strerror or error}") from None


class _Errors(io.FileIO):
    """Standard error: what cannot be written is dropped. A message that cannot be read must not end the work."""

    def write(self, data: Any, /) -> int:
        with contextlib.suppress(OSError):
            return super().write(data)
        return len(data)


@contextmanager
def standard_streams() -> Iterator[None]:
    """While the block runs, ``sys.stdin``, ``sys.stdout`` and ``sys.stderr`` are open, and errors are as above."""
    before = sys.stdin, sys.stdout, sys.stderr
    for number in range(3):
        _open_if_closed(number)
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout, sys.stderr = _stream(sys.stdout, 1, _Output), _stream(sys.stderr, 2, _Errors)
    try:
        yield
    finally:
        sys.stdin, sys.stdout, sys.stderr = before


def drop_output() -> None:
    """Send what is still buffered, and all that follows, nowhere: it cannot be written."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def _open_if_closed(number: int) -> None:
    try:
        os.fstat(number)
    except OSError:
        null = os.open(os.devnull, os.O_RDWR)
        if null != number:
            os.dup2(null, number)
            os.close(null)


def _stream(stream: TextIO | None, number: int, kind: type[io.FileIO]) -> TextIO:
    """Return ``stream`` with the raw file ``kind``; what is no file of this number stays as it is.

    A terminal or pipe whose encoding lacks a character gets a question mark in its place, not a traceback.
    """
    unbuffered = False
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")
        unbuffered = isinstance(stream.buffer, io.FileIO)  # by PYTHONUNBUFFERED
        raw = stream.buffer if unbuffered else getattr(stream.buffer, "raw", None)
        if not isinstance(raw, io.FileIO) or raw.fileno() != number:
            return stream
        stream.flush()
    elif stream is not None:
        return stream
    file = kind(number, "wb", closefd=False)
    return io.TextIOWrapper(
        cast(BinaryIO, file) if unbuffered else io.BufferedWriter(file),
        encoding=stream.encoding if stream else None,
        errors="replace",
        line_buffering=stream.line_buffering if stream else False,
        write_through=stream.write_through if stream else False,
    )
