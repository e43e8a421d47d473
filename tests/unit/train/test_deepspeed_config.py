"""The DeepSpeed config is built from the spec; a user's own config must not contradict it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.execution.deepspeed_config import deepspeed_config
from profiles.errors import SpecError
from profiles.registry import load


def config(tmp_path: Path, own: Any = None, *more: str) -> dict[str, Any]:
    if own is not None:
        (tmp_path / "ds.json").write_text(own if isinstance(own, str) else json.dumps(own))
        more = (*more, f"launch.deepspeed_config={tmp_path / 'ds.json'}")
    return deepspeed_config(load("pretrain_5080", ["launch.backend=deepspeed", *more]), bf16=True, device="cuda")


def test_it_has_the_values_of_the_spec(tmp_path: Path) -> None:
    made = config(tmp_path)
    assert (
        made["train_batch_size"] == 96 == made["train_micro_batch_size_per_gpu"] * made["gradient_accumulation_steps"]
    )
    assert made["zero_optimization"]["stage"] == 2
    assert made["zero_optimization"]["offload_optimizer"] == {"device": "cpu", "pin_memory": True}
    assert made["managed_gradient_accumulation"] is False
    assert made["bf16"] == {"enabled": True}
    assert json.loads(json.dumps(made)) == made


def test_a_users_file_is_merged_into_it(tmp_path: Path) -> None:
    own = {
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_clipping": 1.0,
        "fp16": {"enabled": False},
        "optimizer": {"type": "adamw"},
        "zero_optimization": {"stage": 2, "reduce_bucket_size": 1000, "offload_optimizer": {"pin_memory": False}},
        "comms_logger": {"enabled": True},
    }
    made, plain = config(tmp_path, own), config(tmp_path)
    assert made["zero_optimization"]["reduce_bucket_size"] == 1000
    assert made["zero_optimization"]["offload_optimizer"] == {"device": "cpu", "pin_memory": False}
    assert made["comms_logger"] == {"enabled": True}
    assert made["train_micro_batch_size_per_gpu"] == plain["train_micro_batch_size_per_gpu"]


def test_muon_is_ours_and_a_file_with_another_optimizer_contradicts_it(tmp_path: Path) -> None:
    made = config(tmp_path, {"optimizer": {"type": "Muon"}}, "optim.name=muon")
    assert made["optimizer"]["type"] == "AdamW"
    with pytest.raises(SpecError, match=r"optimizer\.type: \"AdamW\" .* \"Muon\" \(set by optim\.name\)"):
        config(tmp_path, {"optimizer": {"type": "AdamW"}}, "optim.name=muon")


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"gradient_clipping": 0.5}, r"ds\.json: gradient_clipping: 0\.5 contradicts .* 1\.0 \(set by optim\.clip\);"),
        ({"train_micro_batch_size_per_gpu": 4}, r"train_micro_batch_size_per_gpu: 4 .* 12 \(set by batch\.micro\)"),
        ({"zero_optimization": {"stage": 3}}, r"zero_optimization\.stage: 3 .* 2 .*memory.strategy.*ZeRO-2"),
        ({"zero_optimization": {"offload_optimizer": {"device": "none"}}}, r"offload_optimizer\.device: \"none\""),
        ({"optimizer": {"params": {"lr": 1e-3}}}, r"optimizer\.params\.lr: 0\.001 .* 0\.0003 \(set by optim\.lr\)"),
        ({"bf16": {"enabled": False}}, r"bf16\.enabled: false .* true \(set by train\.precision\)"),
        ({"managed_gradient_accumulation": True}, r"managed_gradient_accumulation: true"),
        ({"scheduler": {"type": "WarmupLR"}}, r"ds\.json: scheduler: is not supported, the trainer .*; remove it"),
        ({"fp16": {"enabled": True}}, r"ds\.json: fp16: is not supported"),
        ("{", r"ds\.json: is not valid JSON"),
        ("[]", r"ds\.json: \[\] is not a JSON object"),
        ({"bf16": True}, r"ds\.json: bf16: True is not an object; write its keys in braces"),
        ({"zero_optimization": 5}, r"ds\.json: zero_optimization: 5 is not an object"),
        ({"steps_per_print": "x"}, r"ds\.json: steps_per_print: 'x' is not of the type of 1000000000"),
        ({"zero_optimization": {"overlap_comm": 1}}, r"overlap_comm: 1 is not of the type of false"),
        ('{"a": ' + "[" * 5000, r"ds\.json: is nested more than 32 deep"),
    ],
)
def test_a_contradiction_is_refused_by_name(own: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=message):
        config(tmp_path, own)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    spec = load("pretrain_5080", [f"launch.deepspeed_config={tmp_path / 'none.json'}"])
    with pytest.raises(SpecError, match=r"launch\.deepspeed_config: .*none\.json: No such file"):
        deepspeed_config(spec, bf16=True, device="cuda")
