"""What the trainer logs when its disk refuses writes."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import pytest

from engine.events.log import read_all
from engine.events.types import Step
from engine.train.run_reporter import RunReporter

if TYPE_CHECKING:
    from tests.unit.conftest import Make


class Disk:
    """Fails the next ``times`` writes with ``error``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: int, times: int) -> None:
        self._write, self.error, self.left = os.write, error, times
        monkeypatch.setattr(os, "write", self.write)

    def write(self, fd: int, data: Any) -> int:
        if self.left:
            self.left -= 1
            raise OSError(self.error, os.strerror(self.error))
        return self._write(fd, data)


def test_a_full_disk_at_the_end_is_waited_for(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run()
    reporter = RunReporter(run, 1)
    disk = Disk(monkeypatch, errno.ENOSPC, 4)
    reporter.record(Step(step=1))
    reporter.record(Step(step=2))
    reporter.close()
    assert disk.left == 0
    assert [record.step for _, record in read_all(run.log_path) if isinstance(record, Step)][-2:] == [1, 2]


def test_a_broken_disk_is_not_waited_for(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run()
    reporter = RunReporter(run, 1)
    Disk(monkeypatch, errno.EIO, 1000)
    reporter.record(Step(step=1))
    with pytest.raises(OSError, match="Input/output"):
        reporter.close()
