"""A command of ours run as a child process: the app shows what it says and never loads what it needs, such as torch."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
from collections.abc import Callable, Sequence

from engine.host.programs import COMMAND_LINE, python_module

_PIECE = 1 << 14


async def run(words: Sequence[str], out: Callable[[str], object], err: Callable[[str], object]) -> int:
    """Run ``mla-tui`` with ``words``, handing on what it writes as it comes; returns its exit status.

    It does not outlive the call: where that is cancelled, the child is ended.
    """
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(
        *python_module(COMMAND_LINE, *words), stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
    )
    assert child.stdout is not None and child.stderr is not None
    try:
        await asyncio.gather(_hand_on(child.stdout, out), _hand_on(child.stderr, err))
        return await child.wait()
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.terminate()
            await child.wait()


async def _hand_on(stream: asyncio.StreamReader, to: Callable[[str], object]) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    while piece := await stream.read(_PIECE):
        if text := decoder.decode(piece):
            to(text)


def last_line(text: str) -> str:
    """The last line that says something, without the program's name in front."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("mla-tui: ") if lines else ""
