"""``mla-tui tune``: measures in real processes, and writes a profile of the user."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from engine.events.status import Launch, RunStatus
from engine.host.process import Lock
from engine.memory import hardware as hardware_module
from engine.memory.calibration import load_past_runs
from engine.memory.hardware import Hardware, detect_hardware
from engine.runs.device_locks import DeviceLocks, devices_of
from engine.runs.store import RunStore
from profiles.registry import load
from tui.cli.main import main

GB = 1 << 30
NANO = """
[model]
name = "nano"
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 2
qk_nope_head_dim = 8
qk_rope_head_dim = 8
v_head_dim = 16
kv_lora_rank = 16
intermediate_size = 64
vocab_size = 256

[batch]
accum = 2
micro = 2
context = 256

[train]
compile = "off"

[data]
root = "nowhere"
"""


@pytest.fixture
def profiles_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("MLA_TUI_HOME", str(tmp_path / "home"))
    folder = tmp_path / "mla-tui" / "profiles"
    folder.mkdir(parents=True)
    (folder / "nano.toml").write_text(NANO)
    return folder


def test_it_measures_in_real_processes_and_writes_the_winner(
    profiles_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("engine.train.measure.tune.PAIRS", 1)
    words = ["tune", "-p", "nano", "-s", "optim.lr=2e-3", "--ways", "2", "--seconds", "0.05"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "2 ways" in out and re.search(r"tok/s .* the profile's own", out) and "kept" not in out
    path = profiles_folder / "nano_tuned.toml"
    assert f"written: {path}" in out and "start it with: mla-tui launch -p nano_tuned" in out
    assert path.read_text().startswith("# Measured by mla-tui tune on ")
    tuned, own = load("nano_tuned"), load("nano")
    assert (tuned.batch.sequences, tuned.batch.context, tuned.optim.lr) == (4, 256, 2e-3)
    assert tuned.model.config == own.model.config and tuned.memory.strategy == "device"
    assert not list((tmp_path / "home" / "tune").iterdir())  # nothing is left to go on with
    assert len([run for run in load_past_runs(detect_hardware(), tmp_path / "home") if run.speed]) == 2
    assert main(["plan", "-p", "nano_tuned"]) == 0
    assert "tokens/s (measured here)" in capsys.readouterr().out
    assert main(["plan", "-p", "nano_tuned", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cost"]["kind"] == "measured here"


def test_what_cannot_be_tuned_is_one_line_before_anything_is_measured(
    profiles_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(subprocess, "Popen", None)

    def refused(*words: str) -> str:
        assert main(["tune", *words]) in (1, 2)
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and "Traceback" not in err, err
        return err

    nano = ("-p", "nano")
    assert "--ways: 0 is not in 1..32" in refused(*nano, "--ways", "0")
    assert "--seconds: nan must be above 0" in refused(*nano, "--seconds", "nan")
    assert "is the profile to tune; choose another name" in refused(*nano, "--name", "nano")
    assert "is a built-in profile; choose another name" in refused(*nano, "--name", "cpu_demo")
    bf16 = ("--backend", "deepspeed", "-s", "train.precision=bf16_sr")
    assert "cannot run train.precision = bf16_sr" in refused(*nano, *bf16)
    assert "muon is not supported by --backend mlx" in refused(*nano, "--backend", "mlx", "-s", "optim.name=muon")
    allow = 'memory.allow=["bf16_sr"]'
    assert "states8bit is not among memory.allow" in refused(*nano, "-s", allow, "-s", "strategy=states8bit")
    damaged = tmp_path / "data" / "phase1" / "train"
    damaged.mkdir(parents=True)
    (damaged / "x.bin").write_bytes(b"")
    assert "--synthetic" in refused(*nano, "-s", f"data.root={tmp_path / 'data'}")
    (profiles_folder / "nano_tuned.toml").write_text("")
    assert "nano_tuned.toml: exists; choose another --name, or replace it with --force" in refused(*nano)
    (tmp_path / "home").mkdir()
    locks = DeviceLocks(tmp_path / "home", devices_of(load("nano")))
    locks.acquire("other")
    assert "is in use by run other, and beside it no speed can be measured" in refused(*nano, "--name", "new")
    locks.release()
    shared = RunStore(tmp_path / "home").create(load("nano"), Launch(share_device=True), RunStatus(phase="running"))
    trainer = Lock(shared.trainer_lock)
    assert trainer.acquire()
    assert f"cpu: is in use by run {shared.id}, and beside it" in refused(*nano, "--name", "new")
    trainer.release()
    (tmp_path / "home" / "devices").rename(tmp_path / "home" / "away")
    (tmp_path / "home" / "devices").write_text("")
    assert "devices: File exists; make it writable, or set MLA_TUI_HOME" in refused(*nano, "--name", "new")
    (tmp_path / "home" / "tune" / "left").parent.rename(tmp_path / "home" / "tune_before")
    (tmp_path / "home" / "tune").write_text("")  # a file where the folder should be
    assert "make it writable, or set MLA_TUI_HOME" in refused(*nano, "--name", "new")
    small = Hardware("a cpu", "cpu", None, None, GB // 8, GB // 8)
    monkeypatch.setattr(hardware_module, "detect_hardware", lambda cards=1: small)
    assert "tune: nothing fits: " in refused(*nano, "--name", "new")
    assert not (profiles_folder / "new.toml").exists()
