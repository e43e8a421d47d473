"""Runs a GGUF file in a real llama.cpp: the prebuilt one of the npm package node-llama-cpp."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import torch
from gguf import GGUFReader
from gguf.quants import dequantize

from model.gguf import gguf_tensors
from model.transformer import MLATransformer, build
from profiles.model_config import ModelConfig

# ``make llama`` installs it there; another folder: MLA_LLAMA.
FOLDER = Path(os.environ.get("MLA_LLAMA", "~/.cache/mla-tui/llama")).expanduser()
_SCRIPT = Path(__file__).with_name("run.mjs")


def missing() -> str:
    """Return why llama.cpp cannot be run here; empty where it can."""
    if shutil.which("node") is None:
        return "node is not installed, so no file is loaded by llama.cpp; see make llama"
    if not (FOLDER / "node_modules" / "node-llama-cpp").is_dir():
        return f"node-llama-cpp is not in {FOLDER}, so no file is loaded by llama.cpp; see make llama"
    return ""


def run(model: Path, **request: Any) -> dict[str, Any]:
    """Send ``request`` to ``run.mjs`` and return its answer; both are described there."""
    done = subprocess.run(
        ["node", str(_SCRIPT), str(FOLDER)],
        input=json.dumps({"model": str(model), **request}),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def model_of(file: Path, config: ModelConfig) -> MLATransformer:
    """Return our model with the weights as the GGUF file has them, rounded to its dtype."""
    found = {one.name: torch.tensor(dequantize(one.data, one.tensor_type)) for one in GGUFReader(file).tensors}
    weights: dict[str, torch.Tensor] = {}
    for tensor in gguf_tensors(config):
        if tensor.zero:
            assert not found[tensor.name].any()
            continue
        value = found[tensor.name].float()
        if tensor.part == "all":
            weights[tensor.source] = value
        elif tensor.part == "key":
            weights[tensor.source] = value.transpose(1, 2)
        else:
            weights[tensor.source] = torch.cat([weights[tensor.source], value], dim=1).flatten(0, 1)
    model = build(config, 0)
    model.load_state_dict(weights, strict=False)
    model.tie()
    return model


@torch.no_grad()
def compare(file: Path, config: ModelConfig, prompt: list[int], count: int, texts: list[str]) -> dict[str, Any]:
    """Let llama.cpp and our model on the same weights write ``count`` tokens; return what ``run.mjs`` answers.

    ``equal`` says how many tokens are those of our model given the same text before; ``behind`` how far the logit of
    any other is below the highest. ``ours`` is our loss on the ids that ``loss`` is of: prompt and text.
    """
    first = run(file, greedy=prompt, count=count, texts=texts)
    ids = [*prompt, *first["greedy"]]
    answer = first | {"loss": run(file, scored=ids)["loss"]}
    logits = model_of(file, config)(torch.tensor([ids[:-1]]))[0]
    written, highest = torch.tensor(first["greedy"]), logits[-count:].max(-1).values
    behind = highest - logits[-count:].gather(1, written[:, None])[:, 0]
    answer["equal"] = int((behind == 0).sum())
    answer["behind"] = behind.max().item()
    answer["ours"] = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:])).item()
    return answer


@torch.no_grad()
def loss_of(model: MLATransformer, ids: list[int]) -> float:
    """Return the mean cross-entropy of the ids after the first."""
    logits = model(torch.tensor([ids[:-1]]))[0]
    return torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:])).item()
