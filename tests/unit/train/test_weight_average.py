"""The average of the weights is what its formula says, is resumed bit for bit, changes no loss, and is exported."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.checkpoints import checkpoint
from engine.memory.forecast import forecast
from engine.memory.hardware import Hardware
from engine.memory.launch_fit import launch_fit
from engine.preflight import check_backend
from engine.train.models.pretrained import load_weights
from engine.train.optim.weight_average import EVERY, WeightAverage, host_zeros
from profiles.errors import UserError
from profiles.registry import load
from tests.unit.train.test_samples import tokenizer, trained, trainer_of
from tests.unit.train.tiny_runs import MakeSpec, RecordingReporter
from tui.cli.main import main

__all__ = ["tokenizer"]

EMA = ("optim.ema=0.99", "save_every=10", "val_every=0")


def average_of(out: Path, step: int) -> dict[str, Tensor]:
    found: dict[str, Tensor] = checkpoint.load(out / f"ckpt_step_{step}", ("ema",))[0]["ema"]
    return found


def test_it_forgets_how_it_began_and_then_decays_as_asked() -> None:
    weights = {"w": torch.zeros(3)}
    average = WeightAverage(0.99, host_zeros(weights))
    expected, decay = 0.0, 0.99**EVERY
    for step in range(1, 3001):
        weights["w"].fill_(step)
        average.add_step(weights)
        if step % EVERY == 0:
            earlier = step // EVERY - 1
            kept = min(decay, earlier / (earlier + 9))
            expected = kept * expected + (1 - kept) * step
        assert average.exists == (step >= EVERY)
        assert average.tensors["w"].tolist() == pytest.approx([expected] * 3, rel=1e-5)
    assert 3000 - expected == pytest.approx(100, abs=10)  # it lies 1 / (1 - decay) steps back


@pytest.mark.parametrize("settings", [("precision=bf16_sr",), ("backend=deepspeed",)])
def test_it_changes_no_loss_and_is_resumed_bit_for_bit(
    nano: MakeSpec, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    spec = nano("steps=30", *EMA, *settings)
    straight = trained(spec, tmp_path / "straight")
    resumed = RecordingReporter()
    trainer_of(spec, tmp_path / "resumed", resumed).run(tmp_path / "straight" / "ckpt_step_20", None)
    losses = straight.losses()
    assert resumed.losses() == {step: losses[step] for step in range(21, 31)}
    first, again = (average_of(tmp_path / name, 30) for name in ("straight", "resumed"))
    weights = checkpoint.load(tmp_path / "straight" / "ckpt_step_30", ("model",))[0]["model"]
    assert first.keys() == again.keys() == weights.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], weights[name].float()) for name in first)
    without = trained(nano("steps=30", "stop_step=12", *EMA, *settings, "optim.ema=0"), tmp_path / "without")
    assert without.losses() == {step: losses[step] for step in range(1, 13)}
    assert not (tmp_path / "without" / "ckpt_step_10" / "ema.safetensors").exists()


def test_a_run_goes_on_with_the_average_of_another_backend_or_begins_one(nano: MakeSpec, tmp_path: Path) -> None:
    trained(nano("steps=10", *EMA), tmp_path / "torch")
    deepspeed = nano("steps=12", *EMA, "backend=deepspeed")
    trainer_of(deepspeed, tmp_path / "moved", RecordingReporter()).run(tmp_path / "torch" / "ckpt_step_10", None)
    before, moved = average_of(tmp_path / "torch", 10), average_of(tmp_path / "moved", 12)
    assert all(torch.equal(before[name], moved[name]) for name in before)  # step 20 is the next to count
    trained(nano("steps=10", *EMA, "optim.ema=0"), tmp_path / "none")
    trainer_of(nano("steps=20", *EMA), tmp_path / "begun", RecordingReporter()).run(
        tmp_path / "none" / "ckpt_step_10", None
    )
    weights = checkpoint.load(tmp_path / "begun" / "ckpt_step_20", ("model",))[0]["model"]
    assert all(torch.equal(tensor, weights[name]) for name, tensor in average_of(tmp_path / "begun", 20).items())


def test_it_is_exported_and_evaluated(
    nano: MakeSpec, tokenizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(nano("steps=20", *EMA), tmp_path / "out")
    path, shard = tmp_path / "out" / "ckpt_step_20", str(tokenizer.parent / "val" / "phase1-val-000.bin")
    assert main(["eval", str(path), "--shard", shard]) == 0
    assert main(["eval", str(path), "--shard", shard, "--ema"]) == 0
    assert main(["export", str(path), str(tmp_path / "hf"), "--ema"]) == 0
    exported, average = load_weights(tmp_path / "hf"), average_of(tmp_path / "out", 20)
    assert all(torch.equal(exported[name], tensor) for name, tensor in average.items())
    card = (tmp_path / "hf" / "README.md").read_text()
    assert "exponential with decay 0.99 a step" in card
    capsys.readouterr()
    assert main(["eval", str(path), "--show"]) == 0
    assert main(["eval", str(tmp_path / "hf"), "--show"]) == 0
    shown = capsys.readouterr().out
    assert (
        shown.count("val-000.bin (ema)") == 2 and shown.count("val-000.bin ") == 3
    )  # only its own go with the average
    assert main(["eval", str(tmp_path / "hf"), "--shard", shard, "--ema"]) == 1
    assert "has no average of its weights" in capsys.readouterr().err


def test_the_forecast_counts_it_and_a_launch_without_room_is_refused(nano: MakeSpec) -> None:
    plain, averaged = nano("memory.strategy=device"), nano("memory.strategy=device", "optim.ema=0.999")
    size = 4 * plain.model.config.params
    for device in (None, 80 << 30):
        machine = Hardware("a machine", "cuda" if device else "cpu", device, device, 3 << 30, 3 << 30)
        without, having = forecast(plain, machine), forecast(averaged, machine)
        assert having.host == {**without.host, "weight average": size} and having.device == without.device
    large = ["model.name=mla-1b", "memory.strategy=device", "micro=1", "train.compile=off"]
    assert launch_fit(load("gpu_fast", large), machine, []).possible
    refused = launch_fit(load("gpu_fast", [*large, "optim.ema=0.999"]), machine, [])
    assert not refused.possible and "of host memory needed" in refused.text


def test_mlx_refuses_it_in_one_line(nano: MakeSpec) -> None:
    pytest.importorskip("mlx")
    with pytest.raises(UserError, match=r"optim\.ema: 0\.999 is not supported by --backend mlx; use -s optim\.ema=0"):
        check_backend(nano("backend=mlx", "optim.ema=0.999"))
