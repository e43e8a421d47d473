"""Keeps the shards that were read last open: a limited number for the whole process, whatever it has opened."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from profiles.reader import open_regular_fd

MAX_OPEN = 96  # of all splits and sources; the usual limit of open files of a process is 1024, on macOS 256


class OpenFile:
    """A descriptor that lives as long as someone holds this: a thread may read from it while another evicts it."""

    __slots__ = ("descriptor",)

    def __init__(self, path: Path) -> None:
        self.descriptor = open_regular_fd(path)

    def __del__(self, close: Callable[[int], object] = os.close) -> None:  # os may be gone at the end of the process
        if hasattr(self, "descriptor"):
            close(self.descriptor)


class OpenFiles:
    """The open files of several owners, each with an index there; that used last comes last."""

    def __init__(self) -> None:
        self._files: OrderedDict[tuple[int, int], OpenFile] = OrderedDict()  # by id of the owner and index
        self._lock = threading.RLock()  # an owner may be collected, and close its files, within a call

    def open(self, owner: object, index: int, path: Path) -> OpenFile:
        """Return the open file ``index`` of ``owner``, which must call ``close`` at its end. Raise ``OSError``."""
        key = id(owner), index
        with self._lock:
            file = self._files.get(key)
            if file is not None:
                self._files.move_to_end(key)
                return file
        opened = OpenFile(path)  # may wait for a disk: not within the lock
        with self._lock:
            file = self._files.setdefault(key, opened)
            self._files.move_to_end(key)
            while len(self._files) > MAX_OPEN:
                self._files.popitem(last=False)
        return file

    def close(self, owner: object) -> None:
        """Close the files of ``owner``."""
        with self._lock:
            for key in list(self._files):
                if key[0] == id(owner):
                    self._files.pop(key, None)


OPEN_FILES = OpenFiles()
