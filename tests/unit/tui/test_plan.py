"""Tests ``mla-tui plan``: bars and levers fit the terminal, and JSON has the same numbers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.memory.calibration import MeasuredPeak, measurable_bytes, record_run
from engine.memory.forecast import forecast
from engine.memory.hardware import Hardware
from profiles import registry
from profiles.spec import RunSpec
from profiles.token_budget import best_batch, with_token_budget
from tests.unit import fake_nvml
from tests.unit.fake_nvml import Card
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


def test_a_16_gb_gpu_with_24_gb_of_ram_of_which_19_are_free(capsys: pytest.CaptureFixture[str]) -> None:
    machine = [*MACHINE, "--ram-free", "19"]
    text = planned(capsys, "-p", "pretrain_5080", *machine)
    assert "24 GiB of RAM, 19 of it free" in text and "16.0 GiB free  fits" in text
    assert "about 11.7k tokens/s (assumed" in text and "39.3B tokens in 38d" in text
    answer = json.loads(planned(capsys, "-p", "pretrain_5080", *machine, "--json"))
    assert answer["headroom"] == {"device": "fits", "host": "fits"}
    assert sum(answer["device"].values()) == answer["device_total"] < 16 * GIB
    assert answer["open"] == ["memory.strategy", "memory.checkpointing", "train.precision", "batch.micro"]
    best, *others = answer["ways"]
    found = [best[key] for key in ("strategy", "checkpointing", "precision", "micro")]
    assert found == ["states8bit", "selective", "bf16_sr", 2]
    assert best["lost"] == "" and best["numerics"] and all(other["lost"] for other in others)
    assert answer["cost"]["tokens"] == 200_000 * 96 * 2048
    cost, train = answer["cost"], answer["spec"]["train"]
    validated = (1 + 200_000 // train["val_every"]) * train["val_sequences"] * 2048
    assert cost["validation_seconds"] == pytest.approx(validated / 3 / cost["tok_s"])  # forward only
    assert cost["seconds"] == pytest.approx(cost["tokens"] / cost["tok_s"] + cost["validation_seconds"])
    assert "validating" not in text
    often = planned(capsys, "-p", "pretrain_5080", *machine, "-s", "val_every=1")
    assert re.search(r"39\.3B tokens in 47d .*, until .*, 8d .* of it validating", " ".join(often.split()))
    assert answer["cost"]["kwh"] is None  # of a described card no power is known
    assert answer["levers"] and all(lever["changed"] for lever in answer["levers"])
    assert all(lever["basis"].startswith("assumed ") for lever in answer["levers"])
    deepspeed = json.loads(planned(capsys, "-p", "pretrain_5080", *machine, "--backend", "deepspeed", "--json"))
    assert deepspeed["spec"]["batch"]["micro"] == 12 and deepspeed["headroom"]["host"] == "over"
    assert "of host memory needed at micro 12, 19.0 GiB free" in deepspeed["fit"]


def test_a_gpu_that_is_missing_is_named_with_the_profiles_that_run_here(capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(planned(capsys, "-p", "longctx_5090").split())
    assert "this profile expects a 32 GB GPU, none found; would run here: cpu_demo" in text


def test_energy_is_that_of_the_power_limit_of_all_cards(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_nvml.install(monkeypatch, [Card(f"GPU-{n}", total=16 * GIB, free=15 * GIB) for n in range(2)])
    for words, watts in (((), 360), (("-s", "gpus_per_node=2"), 720)):
        cost = json.loads(planned(capsys, "-p", "pretrain_5080", *words, "--json"))["cost"]
        assert cost["kwh"] == pytest.approx(watts * cost["seconds"] / 3.6e6)
        text = planned(capsys, "-p", "pretrain_5080", *words).replace("\n", " ")
        assert f"up to {cost['kwh']:,.0f} kWh at {watts} W" in text and "expects" not in text


def test_what_a_launch_would_refuse_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "-p", "gpu_fast", "--backend", "deepspeed", "--json"]) == 0
    out, err = capsys.readouterr()
    (line,) = [line for line in err.splitlines() if "memory.strategy" in line]
    assert line == f"mla-tui: {json.loads(out)['refused']}" and "--backend torch" in line
    assert json.loads(planned(capsys, "-p", "cpu_demo", "--backend", "torch", "--json"))["refused"] == ""


def test_what_the_steps_do_not_reach_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (("steps=20",), "30 steps of warm-up are more than train.steps = 20: the rate ends at 0.002 and never reaches"),
        (("stop_step=20",), "more than the 20 until train.stop_step: the rate ends at 0.002 and never reaches"),
        (
            ("backend=torch", "deepspeed_config=ds.json"),
            "launch.deepspeed_config: ds.json is not read by --backend torch",
        ),
        (("stop_step=500",), "train.stop_step: 500 is beyond train.steps = 300, where the run ends; use a smaller one"),
    ):
        options = ["-p", "cpu_demo", *(word for text in words for word in ("-s", text))]
        (line,) = json.loads(planned(capsys, *options, "--json"))["unreached"]
        assert said in line and line in " ".join(planned(capsys, *options).split())
    assert json.loads(planned(capsys, "-p", "cpu_demo", "-s", "steps=30", "--json"))["unreached"] == []


def test_where_nothing_fits_every_way_says_so_and_nothing_larger_is_offered(capsys: pytest.CaptureFixture[str]) -> None:
    answer = json.loads(planned(capsys, "-p", "gpu_fast", "--vram", "4", "--ram", "8", "--json"))
    assert answer["ways"] and all(way["lost"].startswith("does not fit: ") for way in answer["ways"])
    assert answer["levers"]
    assert all(lever["device_saved"] > 0 or lever["host_saved"] > 0 for lever in answer["levers"])


def test_a_measured_run_calibrates_it(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = json.loads(planned(capsys, "-p", "pretrain_5080", "--backend", "deepspeed", *MACHINE, "--json"))
    hardware = Hardware(**before["hardware"])
    spec = RunSpec.from_dict(before["spec"])
    predicted = measurable_bytes(spec, forecast(spec, hardware))
    record_run(spec, hardware, MeasuredPeak(round(predicted["device"] * 1.1)), run="run", home=home)
    after = json.loads(planned(capsys, "-p", "pretrain_5080", "--backend", "deepspeed", *MACHINE, "--json"))
    assert after["calibration"]["device"] == {"ratio": pytest.approx(1.1), "runs": 1}
    assert after["calibration"]["host"] is None
    assert before["device_total"] * 1.08 < after["device_total"] < before["device_total"] * 1.1
    assert "device ×1.10 from 1 run on this machine" in planned(
        capsys, "-p", "pretrain_5080", "--backend", "deepspeed", *MACHINE
    )


@pytest.mark.parametrize(
    "words",
    [
        ["--ram-free", "4"],
        ["--vram", "0", "--ram", "0"],
        ["--vram", "16"],
        ["--vram", "16", "--ram", "-1"],
        ["--ram", "nan", "--vram", "8"],
    ],
)
def test_half_a_machine_description_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "-p", "cpu_demo", *words]) == 2
    assert "--vram and --ram go together" in capsys.readouterr().err


def test_more_free_ram_than_ram_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *MACHINE, "--ram-free", "25"]) == 2
    assert "--ram-free 25 is more than --ram 24" in capsys.readouterr().err


def test_a_budget_of_tokens_proposes_batch_and_steps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "-p", "pretrain_5080", *MACHINE, "--tokens", "10B", "--json"]) == 0
    out, err = capsys.readouterr()
    spec = json.loads(out)["spec"]
    assert (spec["batch"]["sequences"], spec["train"]["steps"]) == (512, 9537)
    assert json.loads(out)["cost"]["tokens"] == 512 * 2048 * 9537
    assert "10B tokens: -s sequences=512 -s steps=9537, 1,048,576 tokens a step" in err and "arXiv:2505.13738" in err


@pytest.mark.parametrize("text", ["ten", "0", "-1B", "1K", "1e99", "10B10", "٣B"])
def test_a_wrong_budget_of_tokens_is_refused_in_one_line(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "-p", "cpu_demo", f"--tokens={text}"]) == 2
    assert capsys.readouterr().err.count("is not a number of tokens from 1M to 1000T; write for example 10B") == 1


@given(st.integers(10**6, 10**13), st.integers(1, 12), st.sampled_from([256, 2048, 32768]))
def test_the_proposed_batch_is_near_the_best_and_reads_the_budget(tokens: int, micro: int, context: int) -> None:
    spec = registry.load("cpu_demo", [f"sequences={micro}", f"micro={micro}", f"context={context}"])
    new = with_token_budget(spec, tokens)
    assert new.batch.sequences % micro == 0
    assert 0 <= new.train.steps * new.tokens_per_step - tokens < new.tokens_per_step
    ratio = new.tokens_per_step / best_batch(tokens)
    assert ratio > 0.7 and (ratio < 1.42 or new.accum == 1)  # half a doubling, unless one micro-batch is more


def test_a_terminal_without_width_is_no_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1")
    assert planned(capsys, "-p", "cpu_demo")
