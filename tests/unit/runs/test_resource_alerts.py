"""What runs low is said once, and again only after it has been well."""

from __future__ import annotations

import os
from pathlib import Path

from engine.runs.resource_alerts import ResourceAlerts

GB = 10**9


def ram(free: float) -> dict[str, float]:
    return {"ram_total": 24 * GB, "ram_used": (24 - free) * GB}


def test_low_memory_is_said_once_until_it_was_well(tmp_path: Path) -> None:
    alarms = ResourceAlerts(tmp_path)
    told = [len(alarms.check(ram(free), None)) for free in (10, 0.5, 0.4, 1.0, 0.5, 2.0, 0.5)]
    assert told == [0, 1, 0, 0, 0, 0, 1]
    ((what, text),) = ResourceAlerts(tmp_path).check(ram(0.5), None)
    assert what == "pressure"
    assert "0.5 GB of 24 GB" in text


def test_a_checkpoint_that_will_not_fit_is_said_before(tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    free = disk.f_bavail * disk.f_frsize
    alarms = ResourceAlerts(tmp_path)
    assert alarms.check(ram(10), free // 10) == []
    ((what, text),) = alarms.check(ram(10), free * 2)
    assert what == "disk"
    assert str(tmp_path) in text
    assert alarms.check(ram(10), free * 2) == []
    assert ResourceAlerts(tmp_path / "gone").check(ram(10), free * 2) == []


def test_what_is_not_known_is_no_alarm(tmp_path: Path) -> None:
    assert ResourceAlerts(tmp_path).check({"ram_total": None, "ram_used": None}, None) == []
