"""Reads a checkpoint that is to be exported, with all that every format needs of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.tokenizer import id_count, load_tokenizer
from engine.checkpoints import checkpoint
from engine.checkpoints.evals import EvalResult, read_results
from engine.train.models.end_token import end_token
from engine.train.models.pretrained import EMA, WEIGHTS, check_average, check_tensors
from profiles.errors import UserError
from profiles.spec import RunSpec

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class ExportSource:
    """A checked checkpoint. ``tokenizer`` is None where it has none or it is left out; ``end`` is the id that ends a
    text, None where none does. ``ema``: the tensors are the average of the weights."""

    path: Path
    spec: RunSpec
    step: int
    tensors: dict[str, Tensor]
    metadata: dict[str, Any]
    tokenizer: Any
    end: int | None
    ema: bool

    def scores(self) -> list[EvalResult]:
        """Return what was measured on these weights."""
        return [result for result in read_results(self.path) if result.ema == self.ema]


def read_source(path: Path, *, with_tokenizer: bool = True, ema: bool = False) -> ExportSource:
    """Read and verify the checkpoint ``path``, with ``ema`` the average of its weights. Raise ``UserError``."""
    part = EMA if ema else WEIGHTS
    if ema:
        check_average(path)
    state, metadata = checkpoint.load(path, (part,))
    spec = checkpoint.spec_of(path)
    check_tensors(path, spec.model.config, str(path), part)
    tokenizer = _tokenizer(path, spec.model.config.vocab_size) if with_tokenizer else None
    end = None if tokenizer is None else end_token(metadata, tokenizer)
    return ExportSource(path, spec, int(metadata["step"]), state[part], metadata, tokenizer, end, ema)


def _tokenizer(source: Path, vocab: int) -> Any:
    """Return the checkpoint's tokenizer or None. Raise ``UserError`` where it has ids beyond the model's."""
    file = source / "tokenizer.json"
    if not file.is_file():
        return None
    tokenizer = load_tokenizer(file)
    if (ids := id_count(tokenizer)) > vocab:
        raise UserError(
            f"{file}: has ids up to {ids - 1}, the model a vocabulary of {vocab}, so it belongs to another model;"
            " export without it: --no-tokenizer"
        )
    return tokenizer
