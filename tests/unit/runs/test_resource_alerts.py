"""A low resource is reported once, and again only after it has recovered."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.host.disk_space import free_space, is_full
from engine.runs.resource_alerts import ResourceAlerts

GB = 10**9


def ram(free: float) -> dict[str, float]:
    return {"ram_total": 24 * GB, "ram_used": (24 - free) * GB}


def test_low_memory_is_reported_once_until_it_recovers(tmp_path: Path) -> None:
    alerts = ResourceAlerts(tmp_path, tmp_path)
    counts = [len(alerts.check(ram(free), None)) for free in (10, 0.5, 0.4, 1.0, 0.5, 2.0, 0.5)]
    assert counts == [0, 1, 0, 0, 0, 0, 1]
    ((what, text),) = ResourceAlerts(tmp_path, tmp_path).check(ram(0.5), None)
    assert what == "pressure"
    assert "0.50 GB of 24.0 GB" in text


def test_a_checkpoint_that_will_not_fit_is_reported_before_it_is_written(tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    free = disk.f_bavail * disk.f_frsize
    alerts = ResourceAlerts(tmp_path, tmp_path)
    assert alerts.check(ram(10), free // 10) == []
    ((what, text),) = alerts.check(ram(10), free * 2)
    assert what == "disk"
    assert str(tmp_path) in text
    assert alerts.check(ram(10), free * 2) == []
    assert ResourceAlerts(tmp_path / "gone", tmp_path).check(ram(10), free * 2) == []


def test_unknown_values_are_no_alert(tmp_path: Path) -> None:
    assert ResourceAlerts(tmp_path, tmp_path).check({"ram_total": None, "ram_used": None}, None) == []


def test_a_disk_that_is_nearly_full_under_the_log_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log cannot say so any more once it is full."""
    alerts, disk = ResourceAlerts(tmp_path / "models", tmp_path), os.statvfs(tmp_path)
    found = []
    for free in (1000, 10, 5, 100, 10):
        here = os.statvfs_result((*disk[:4], free * 10**6 // disk.f_frsize, *disk[5:]))
        monkeypatch.setattr(os, "statvfs", {tmp_path: here, tmp_path / "models": disk}.__getitem__)
        found.append([text for what, text in alerts.check(ram(10), None) if what == "disk"])
    assert [len(texts) for texts in found] == [0, 1, 0, 0, 1]
    assert f"{tmp_path}: 10.0 MB are free" in found[1][0]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a file system without a size: /proc of Linux")
def test_a_file_system_that_does_not_say_its_size_is_not_full() -> None:
    nowhere = Path("/proc")  # as FUSE without statfs: 0 of 0 blocks
    assert free_space(nowhere) is None
    assert not is_full(nowhere)
    assert ResourceAlerts(nowhere, nowhere).check(ram(10), 1 << 30) == []
