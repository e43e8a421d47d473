"""Runs something in a process that is killed, or gets an error, where it would make a change to the disk."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from profiles.errors import UserError

_CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate")


def fault_at(number: int, act: Callable[[], object], error: int = 0) -> tuple[bool, str]:
    """Run ``act`` in another process, and kill it just before its change of that number (of 1 and up).

    With ``error`` the change fails with that errno instead. Return whether ``act`` came so far, and the message of the
    ``UserError`` it raised.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        left = number

        def before(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal left
            writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if not (writes or event in _CHANGES):
                return
            left -= 1
            if not left:
                os.write(writer, b"!")
                if not error:
                    os.kill(os.getpid(), signal.SIGKILL)
                raise OSError(error, os.strerror(error), arguments[0])

        try:
            sys.addaudithook(before)
            act()
        except UserError as found:
            os.write(writer, str(found).encode())
        except BaseException as found:
            os.write(writer, f"not a UserError: {found!r}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as answer:
        text = answer.read()
    os.waitpid(pid, 0)
    return text.startswith("!"), text.removeprefix("!")
