"""Runs a command of mla-tui as a child process, so that the app never loads what the command needs, such as torch."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
from collections.abc import Callable, Sequence

from engine.host.process import signal_name
from engine.host.programs import COMMAND_LINE, python_module

_PIECE = 1 << 14  # bytes read at once


async def run(arguments: Sequence[str], on_stdout: Callable[[str], object], on_stderr: Callable[[str], object]) -> int:
    """Run ``mla-tui`` with ``arguments``, pass on its output as it is written, and return its exit status.

    If the call is cancelled, the child process is terminated. Where none can be started, ``on_stderr`` gets the reason.
    """
    pipe = asyncio.subprocess.PIPE
    try:
        child = await asyncio.create_subprocess_exec(
            *python_module(COMMAND_LINE, *arguments), stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
        )
    except (OSError, ValueError) as error:  # a text longer than a program's arguments may be, no memory, a NUL in it
        on_stderr(f"the command cannot be started: {getattr(error, 'strerror', None) or error}")
        return 1
    assert child.stdout is not None and child.stderr is not None
    try:
        await asyncio.gather(_forward(child.stdout, on_stdout), _forward(child.stderr, on_stderr))
        return await child.wait()
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.terminate()
            await child.wait()


async def _forward(stream: asyncio.StreamReader, receive: Callable[[str], object]) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    while piece := await stream.read(_PIECE):
        if text := decoder.decode(piece):
            receive(text)


def outcome(code: int, stderr: str) -> str:
    """Return the last line of a command, or why it ended where it did not say so."""
    if code < 0:
        return f"the command was ended by {signal_name(-code)}"
    return last_line(stderr) or (f"the command ended with status {code}" if code else "")


def last_line(text: str) -> str:
    """Return the last line that is not empty, without the name of the program in front."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("mla-tui: ") if lines else ""
