"""Restores the directory of a run that was deleted, in whole or in part, while its processes live.

They hold the log open, so its content is still there, and they know the spec.
"""

from __future__ import annotations

import os
from pathlib import Path

from engine.events.log import LogWriter
from engine.events.run_dir import RunDir
from engine.host.files import write_atomic
from engine.host.private_dirs import make_private_dir, private_opener
from profiles.errors import UserError
from profiles.reader import read_bytes

_CHUNK = 1 << 20


class RunFiles:
    """The files of a run that its processes cannot do without, as they were when this was made."""

    def __init__(self, run: RunDir) -> None:
        self._run = run
        self._spec = _content(run.path / "spec.json")  # empty where there is none: then there is nothing to restore
        self._folder = os.stat(run.path)

    def folder_is_gone(self) -> bool:
        """Return whether the directory was deleted; another one may have its name by now."""
        try:
            return not os.path.samestat(self._folder, os.stat(self._run.path))
        except OSError:
            return True

    def restore_spec(self) -> None:
        """Write spec.json again if it was deleted or changed. Raises ``OSError``."""
        path = self._run.path / "spec.json"
        if self._spec and _content(path) != self._spec:
            write_atomic(path, self._spec)

    def restore(self, log: LogWriter) -> None:
        """Make the directory again, with spec and log; further records go into the new log. Raises ``OSError``."""
        make_private_dir(self._run.path, parents=True)
        self.restore_spec()
        self._folder = os.stat(self._run.path)
        if not log.is_linked():
            log.move_to(_copied(log, self._run.log_path))


def _content(path: Path) -> bytes:
    try:
        return read_bytes(path)
    except (OSError, UserError):
        return b""


def _copied(log: LogWriter, path: Path) -> Path:
    """Write the records of ``log`` to ``path``, complete or not at all, and return it."""
    temporary, offset = path.with_name(f".{path.name}.{os.getpid()}"), 0
    with open(temporary, "wb", opener=private_opener) as file:
        while part := os.pread(log.fd, _CHUNK, offset):
            file.write(part)
            offset += len(part)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, path)
    return path
