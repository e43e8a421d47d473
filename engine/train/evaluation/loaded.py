"""Loads a model that is to be evaluated, from a checkpoint or a Hugging Face directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from data.tokenizer import load_tokenizer
from engine.checkpoints import checkpoint
from engine.train.models.end_token import end_token
from engine.train.models.pretrained import (
    EMA,
    WEIGHTS,
    check_average,
    check_tensors,
    is_hugging_face,
    load_weights,
    read_config,
)
from model.transformer import MLATransformer
from profiles.errors import UserError
from profiles.reader import Table, read_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model with its tokenizer. ``source`` names it in messages.

    ``context``: tokens it is trained on at once. ``prefix``: the id that stands before a text, its end-of-text token;
    None if it has none.
    """

    model: MLATransformer
    tokenizer: Tokenizer
    context: int
    prefix: int | None
    source: str

    @property
    def device(self) -> str:
        return self.model.lm_head.weight.device.type


def load_model(path: Path, *, ema: bool = False) -> LoadedModel:
    """Load the model in ``path``, on the GPU if there is one. Raise ``UserError`` where it is damaged or not whole.

    ``ema``: the average of a checkpoint's weights.
    """
    part = EMA if ema else WEIGHTS
    if ema:
        check_average(path)
    config = read_config(path)
    check_tensors(path, config, str(path), part)
    tokenizer = load_tokenizer(path / "tokenizer.json")
    context, prefix = _context_and_prefix(path, tokenizer)
    with torch.device("meta"):
        model = MLATransformer(config)
    tensors = {name: _full(tensor) for name, tensor in load_weights(path, part).items()}
    model.load_state_dict(tensors, strict=False, assign=True)
    model.tie()
    model.to("cuda" if torch.cuda.is_available() else "cpu").requires_grad_(False)
    return LoadedModel(model, tokenizer, context, prefix, str(path))


def _full(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor as the harness loads it on this device: fp32 on a CPU, where other dtypes are slow."""
    return tensor if torch.cuda.is_available() else tensor.float()


def _context_and_prefix(path: Path, tokenizer: Tokenizer) -> tuple[int, int | None]:
    if not is_hugging_face(path):
        return checkpoint.spec_of(path).batch.context, end_token(checkpoint.metadata(path), tokenizer)
    raw: dict[str, Any] = read_json(path / "config.json")
    context = Table(raw, f"{path}/config.json", "take another copy").integer("max_position_embeddings", 1)
    ids = (raw.get("bos_token_id"), raw.get("eos_token_id"))
    known = [id for id in ids if type(id) is int and tokenizer.id_to_token(id) is not None]
    return context, known[0] if known else end_token({}, tokenizer)


def encode(tokenizer: Tokenizer, text: str, vocabulary: int, source: str) -> list[int]:
    """Return the ids of ``text``. Raise ``UserError`` where one is outside the model's ``vocabulary``."""
    try:
        text.encode()
    except UnicodeEncodeError as error:  # JSON can name halves of surrogate pairs
        raise UserError(f"{source}: is not UTF-8 text from character {error.start} on; repair or remove it") from None
    ids: list[int] = tokenizer.encode(text).ids
    if ids and (highest := max(ids)) >= vocabulary:
        raise UserError(
            f"{source}: the tokenizer gives it the id {highest}, the model has a vocabulary of {vocabulary};"
            " the tokenizer.json belongs to another model"
        )
    return ids
