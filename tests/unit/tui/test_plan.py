"""Tests ``mla-tui plan``: bars and levers fit the terminal, and JSON has the same numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.memory.calibration import MeasuredPeak, measurable_bytes, record_run
from engine.memory.forecast import forecast
from engine.memory.hardware import Hardware
from profiles import registry
from tui.cli.main import main

MACHINE = ["--vram", "16", "--ram", "24"]
GIB = 1 << 30


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLA_TUI_HOME", str(tmp_path))
    return tmp_path


def planned(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert main(["plan", *args]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("profile", registry.BUILTIN_ORDER)
@pytest.mark.parametrize("machine", [[], MACHINE])
@pytest.mark.parametrize("columns", [60, 80, 200])
def test_it_fits_the_terminal(
    profile: str,
    machine: list[str],
    columns: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = planned(capsys, "-p", profile, *machine).splitlines()
    bars = [line for line in lines if line.startswith("  █")]
    assert bars
    assert max(map(len, bars)) < columns
    if columns >= 80:
        assert max(map(len, lines)) <= columns
    assert "\x1b" not in "".join(lines)  # stdout is not a terminal


def test_the_profiles_on_a_16_gb_gpu_with_24_gb_of_ram(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for profile in ("pretrain_5080", "longctx_5090"):
        text = planned(capsys, "-p", profile, *MACHINE)
        assert "16.0 GiB free  fits" in text
        assert "24.0 GiB free  tight" in text
        answer = json.loads(planned(capsys, "-p", profile, *MACHINE, "--json"))
        assert answer["headroom"] == {"device": "fits", "host": "tight"}
        assert sum(answer["device"].values()) == answer["device_total"] < 16 * GIB
        assert any(lever["host_saved"] > 0 for lever in answer["levers"])
        assert all(lever["basis"] and lever["changed"] for lever in answer["levers"])


def test_a_measured_run_calibrates_it(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = json.loads(planned(capsys, "-p", "pretrain_5080", *MACHINE, "--json"))
    hardware = Hardware(**before["hardware"])
    spec = registry.load("pretrain_5080")
    predicted = measurable_bytes(spec, forecast(spec, hardware))
    record_run(spec, hardware, MeasuredPeak(round(predicted["device"] * 1.1)), run="run", home=home)
    after = json.loads(planned(capsys, "-p", "pretrain_5080", *MACHINE, "--json"))
    assert after["calibration"]["device"] == {"ratio": pytest.approx(1.1), "runs": 1}
    assert after["calibration"]["host"] is None
    assert before["device_total"] * 1.08 < after["device_total"] < before["device_total"] * 1.1
    assert "device ×1.10 from 1 run on this machine" in planned(capsys, "-p", "pretrain_5080", *MACHINE)


@pytest.mark.parametrize(
    "words",
    [["--vram", "0", "--ram", "0"], ["--vram", "16"], ["--vram", "16", "--ram", "-1"], ["--ram", "nan", "--vram", "8"]],
)
def test_half_a_machine_description_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "-p", "cpu_demo", *words]) == 2
    assert "--vram and --ram go together" in capsys.readouterr().err
