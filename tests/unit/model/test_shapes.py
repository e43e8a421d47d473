"""The names and shapes listed without torch are those of the model."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
import torch

from model.shapes import parameter_shapes
from model.transformer import MLATransformer
from profiles.model_config import NAMED_MODELS, ModelConfig

TINY = NAMED_MODELS["mla-tiny"]


@pytest.mark.parametrize(
    "config",
    [
        *NAMED_MODELS.values(),
        dataclasses.replace(TINY, q_lora_rank=24, v_head_dim=40),
        dataclasses.replace(TINY, tie_word_embeddings=True),
    ],
)
def test_names_and_shapes_are_those_of_the_model(config: ModelConfig) -> None:
    with torch.device("meta"):
        model = MLATransformer(config)
    assert parameter_shapes(config) == {name: tuple(p.shape) for name, p in model.named_parameters()}


def test_torch_is_not_imported() -> None:
    code = "import sys, engine.train.models.pretrained; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
