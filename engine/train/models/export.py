"""Exports a checkpoint as a Hugging Face directory, which transformers, mlx-lm and compatible programs can load."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.checkpoints.atomic_write import check_new_dir
from engine.checkpoints.evals import add_results
from engine.train.models.export_source import ExportSource, read_source
from engine.train.models.model_card import MODEL_CARD, model_card
from engine.train.models.pretrained import INDEX
from engine.train.models.publish import check_free_space, publish_dir
from model.hf import to_hf_config
from profiles.errors import UserError
from profiles.paths import expand

if TYPE_CHECKING:
    import torch
    from torch import Tensor

DTYPES = {"fp32": "float32", "bf16": "bfloat16"}
SHARD_BYTES = 5 * 10**9  # one file up to here, as Hugging Face writes them


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What was written. ``tokenizer``: whether one was."""

    path: Path
    step: int
    dtype: str
    bytes: int
    tokenizer: bool


def export(
    checkpoint: Path,
    out: Path,
    dtype: str | None = None,
    *,
    with_tokenizer: bool = True,
    ema: bool = False,
    log: Path | None = None,
) -> ExportResult:
    """Write ``checkpoint`` to the new or empty directory ``out``, completely or not at all.

    ``dtype``: a key of ``DTYPES``, or None to keep the checkpoint's. ``with_tokenizer``: also write its tokenizer, if
    it has one. ``ema``: write the average of the weights. ``log``: that of its run, for the model card. Raises
    ``UserError``.
    """
    import torch

    try:
        out = Path(os.path.realpath(expand(str(out), "export")))
        check_new_dir(out)
        source = read_source(checkpoint, with_tokenizer=with_tokenizer, ema=ema)
        tensors = dict(source.tensors)
        if source.spec.model.config.tie_word_embeddings:
            # transformers ties it again; mlx-lm and vLLM do not tie heads and need this tensor
            tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        kind = getattr(torch, DTYPES[dtype]) if dtype else tensors["model.embed_tokens.weight"].dtype
        name = str(kind).removeprefix("torch.")
        check_free_space(out, sum(t.numel() for t in tensors.values()) * kind.itemsize)

        def write(folder: Path) -> None:
            for file, content in _documents(source, name).items():
                (folder / file).write_text(json.dumps(content, indent=2) + "\n")
            (folder / MODEL_CARD).write_text(model_card(source, out.name, log), encoding="utf-8")
            if source.tokenizer is not None:
                shutil.copyfile(checkpoint / "tokenizer.json", folder / "tokenizer.json")
            _write_weights(folder, tensors, kind)
            if scores := source.scores():
                add_results(folder, scores)  # they name the weights, which have to be there

        size = publish_dir(out, write)
    except OSError as error:
        raise UserError(f"{out}: {error.strerror or error}; nothing was written") from None
    return ExportResult(out, source.step, name, size, source.tokenizer is not None)


def _documents(source: ExportSource, dtype: str) -> dict[str, dict[str, Any]]:
    """Return the JSON files beside the weights, by name."""
    context, end = source.spec.batch.context, source.end
    ends = {} if end is None else {"eos_token_id": end}
    config = to_hf_config(source.spec.model.config, context)
    documents = {
        # transformers 5 and newer read dtype, everyone else torch_dtype
        "config.json": {**config, **ends, "dtype": dtype, "torch_dtype": dtype},
        "generation_config.json": ends | ({} if end is None else {"pad_token_id": end}),
    }
    if source.tokenizer is not None:
        documents["tokenizer_config.json"] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": context,
            "clean_up_tokenization_spaces": False,
            **({} if end is None else {"eos_token": source.tokenizer.id_to_token(end)}),
        }
    return documents


def _write_weights(folder: Path, tensors: dict[str, Tensor], dtype: torch.dtype) -> None:
    """Write one file, or several and an index. Only one file's tensors are converted to ``dtype`` at a time."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    shards = list(_shards(tensors, dtype.itemsize))
    files: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        name = "model.safetensors" if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        try:
            shard = {key: tensors[key].to(dtype).contiguous() for key in names}
            save_file(shard, folder / name, metadata={"format": "pt"})
        except SafetensorError as error:
            raise OSError(str(error)) from None
        files |= dict.fromkeys(names, name)
    if len(shards) > 1:
        total = sum(t.numel() for t in tensors.values()) * dtype.itemsize
        index = {"metadata": {"total_size": total}, "weight_map": files}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def _shards(tensors: dict[str, Tensor], width: int) -> Iterator[list[str]]:
    """Yield the names in order, in groups of at most ``SHARD_BYTES`` and at least one tensor."""
    group: list[str] = []
    group_bytes = 0
    for name, tensor in tensors.items():
        size = tensor.numel() * width
        if group and group_bytes + size > SHARD_BYTES:
            yield group
            group, group_bytes = [], 0
        group.append(name)
        group_bytes += size
    yield group
