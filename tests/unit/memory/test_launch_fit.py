"""Before a launch: a run that fits starts silently, one that may fit warns, one that cannot fit is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from engine import preflight
from engine.memory import launch_fit as module
from engine.memory import limits
from engine.memory.calibration import PastRun, measurable_bytes
from engine.memory.forecast import forecast
from engine.memory.hardware import Hardware, detect_hardware
from engine.memory.launch_fit import launch_fit
from engine.memory.search.choose import choose
from profiles.errors import ForceNeeded
from profiles.registry import load, with_overrides
from profiles.spec import RunSpec
from tui.cli.main import main

GIB = 1 << 30


def cpu(total: float, free: float | None = None) -> Hardware:
    return Hardware("a cpu", "cpu", None, None, int(total * GIB), int((total if free is None else free) * GIB))


def card(total: float, free: float | None = None, ram: float = 64) -> Hardware:
    on_card = int(total * GIB), int((total if free is None else free) * GIB)
    return Hardware("a card", "cuda", *on_card, int(ram * GIB), int(ram * GIB))


def spec(*more: str) -> RunSpec:
    return load("cpu_demo", ["optim.name=adamw", "memory.strategy=device", "train.compile=off", *more])


def on_card(*more: str) -> RunSpec:
    return load("gpu_fast", ["memory.strategy=device", "train.compile=off", *more])


def needed(spec: RunSpec, hardware: Hardware) -> float:
    parts = forecast(spec, hardware)
    return (parts.host_total if hardware.device == "cpu" else parts.device_total) / GIB


def test_what_fits_is_not_talked_about() -> None:
    assert launch_fit(spec(), cpu(64), []) == module.LaunchFit("", True)
    assert launch_fit(on_card(), card(640), []) == module.LaunchFit("", True)


@pytest.mark.parametrize(("oom", "then"), [("auto", "goes on with a smaller one"), ("ask", "asks you")])
def test_a_micro_that_is_too_large_starts_and_the_line_names_one_that_fits(oom: str, then: str) -> None:
    large = spec(f"oom={oom}", "sequences=64", "micro=64")
    at_8 = needed(large.with_batch(micro=8), cpu(1))
    fit = launch_fit(large, cpu(at_8 + 0.01), [])
    assert fit.possible
    assert fit.text == (
        f"{needed(large, cpu(1)):.2f} GiB of host memory needed at micro 64, {at_8 + 0.01:.2f} GiB free;"
        f" micro 8 is predicted to fit; out of memory, the run {then} (memory.oom = {oom})"
    )


def test_what_does_not_fit_at_micro_1_is_refused_with_the_cheapest_change_that_fits() -> None:
    large = on_card("context=32768", "micro=4", "sequences=4")
    least = needed(large.with_batch(micro=1), card(1))
    fit = launch_fit(large, card(least * 0.85, free=least * 0.8), [])
    assert not fit.possible
    assert re.fullmatch(
        rf"does not fit: {least:.1f} GiB of device memory needed at micro 1,"
        rf" {least * 0.85:.1f} GiB there in all, {least * 0.8:.1f} GiB of it free; use -s memory\.\w+=\w+",
        fit.text,
    ), fit.text
    # The line's own advice is followed.
    change = fit.text.rpartition("-s ")[2]
    advised = on_card("context=32768", "micro=1", "sequences=4", change)
    assert forecast(advised, card(1)).fits(card(least * 0.85))


def test_where_no_single_change_is_enough_several_are_named_and_do_fit() -> None:
    fixed, small = on_card("oom=fail", "micro=12"), card(16)
    fit = launch_fit(fixed, small, [])
    assert not fit.possible
    advised = fit.text.partition("; use ")[2].split(" -s ")
    assert len(advised) >= 2 and "batch.context" not in fit.text
    spec = with_overrides(fixed, [change.removeprefix("-s ") for change in advised])
    assert forecast(spec, small).fits(small)
    assert launch_fit(on_card("model.num_hidden_layers=800"), small, []).text.endswith(" is enough)")


def test_memory_that_others_hold_for_now_refuses_nothing() -> None:
    small = spec("micro=1")
    fit = launch_fit(small, cpu(64, free=0.1), [])
    assert fit.possible and "micro 1, 0.10 GiB free; no micro is predicted to fit into that; free some, or" in fit.text


def test_the_memory_that_lacks_the_most_is_named() -> None:
    one = on_card("micro=1", "sequences=1")
    assert "of device memory needed at micro 1, 0.00 GiB free" in launch_fit(one, card(640, free=0, ram=2.5), []).text
    assert "1.50 GiB of host memory needed at micro 1, 0.25 GiB free" in launch_fit(one, card(640, ram=0.25), []).text


def test_the_error_of_the_forecast_is_no_reason_to_refuse() -> None:
    """On a CPU a forecast has been 7% over, and the overhead of a card is assumed."""
    one = spec("micro=1", "sequences=1")
    assert launch_fit(one, cpu(needed(one, cpu(1)) / 1.07), []).possible
    assert not launch_fit(one, cpu(needed(one, cpu(1)) / 1.1), []).possible
    one = on_card("micro=1", "sequences=1")
    parts = forecast(one, card(1)).device
    certain = sum(parts.values()) - parts["CUDA context"] - parts["allocator slack"]
    assert launch_fit(one, card(certain / GIB), []).possible
    assert not launch_fit(one, card(certain / GIB * 0.97), []).possible


def test_with_oom_fail_the_micro_itself_has_to_fit() -> None:
    fixed = spec("oom=fail", "sequences=64", "micro=64")
    wanted, at_8 = needed(fixed, cpu(1)), needed(fixed.with_batch(micro=8), cpu(1))
    fit = launch_fit(fixed, cpu(at_8 + 0.01), [])
    assert not fit.possible and "needed at micro 64" in fit.text and " use -s " in fit.text
    fit = launch_fit(fixed, cpu(wanted * 2, free=at_8 + 0.01), [])
    assert fit.possible and "the first out-of-memory error ends the run; use -s " in fit.text


def test_measured_peaks_correct_what_is_refused() -> None:
    one = spec("micro=1", "sequences=1")
    predicted = measurable_bytes(one, forecast(one, cpu(1)))
    past = PastRun("before", "torch", predicted, {"host": int(predicted["host"] * 0.6)})
    room = cpu(needed(one, cpu(1)) * 0.7)
    assert not launch_fit(one, room, []).possible
    assert launch_fit(one, room, [past]) == module.LaunchFit("", True)


def test_a_limit_on_the_address_space_is_per_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = spec("micro=1"), spec("micro=1", "gpus_per_node=2")
    room = int(needed(one, cpu(1)) * 1.05 * GIB / (1 - limits.HOLES))
    monkeypatch.setattr(limits, "address_space_limit", lambda: limits.UNTOUCHED + room)
    assert launch_fit(one, detect_hardware(1), []).text == launch_fit(two, detect_hardware(2), []).text == ""
    monkeypatch.setattr(limits, "address_space_limit", lambda: limits.UNTOUCHED + room // 2)
    assert not launch_fit(one, detect_hardware(1), []).possible
    assert not launch_fit(two, detect_hardware(2), []).possible


def test_every_profile_that_auto_resolves_is_refused_only_where_its_smallest_strategy_does_not_fit() -> None:
    auto = load("pretrain_5080", ["memory.strategy=auto", "train.compile=off"])
    for total in (0.5, 4, 8, 16, 24):
        hardware = card(total)
        resolved = choose(auto, hardware)
        if not launch_fit(resolved, hardware, []).possible:
            smallest = [
                replace(auto, memory=replace(auto.memory, strategy=name)).with_batch(micro=1)
                for name in ("device", "offload")
            ]
            assert not any(forecast(one, hardware).fits(hardware) for one in smallest)


@pytest.mark.parametrize("command", ["launch", "train"])
def test_the_command_line_refuses_in_one_line(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.e2e.conftest import write_shards

    write_shards(tmp_path / "shards")
    monkeypatch.setenv("MLA_TUI_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(preflight, "detect_hardware", lambda cards=1: cpu(0.25, free=0.1))
    where = ["-s", f"data.root={tmp_path / 'shards'}", "-s", f"train.out={tmp_path / 'out'}"]
    assert main([command, "-p", "cpu_demo", *where]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert re.match(r"mla-tui: does not fit: .* 0\.25 GiB there in all, 0\.10 GiB of it free; ", err)
    assert err.endswith(", or start it anyway with --force\n")
    assert not (tmp_path / "home" / "runs").exists() and not (tmp_path / "out").exists()


def test_who_insists_is_only_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "detect_hardware", lambda cards=1: cpu(0.25))
    lines: list[str] = []
    with pytest.raises(ForceNeeded):
        preflight.check_memory(spec(), tmp_path, lines.append, insists=False)
    preflight.check_memory(spec(), tmp_path, lines.append, insists=True)
    (line,) = lines
    assert "does not fit" in line and "--force" not in line
