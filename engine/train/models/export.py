"""Exports a checkpoint as a Hugging Face directory, which transformers, mlx-lm and compatible programs can load."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.tokenizer import id_count, load_tokenizer
from engine.checkpoints import checkpoint
from engine.checkpoints.atomic_write import check_new_dir
from engine.train.models.pretrained import INDEX, check_tensors
from model.hf import to_hf_config
from profiles.errors import UserError
from profiles.paths import expand
from profiles.spec import RunSpec

if TYPE_CHECKING:
    import torch
    from torch import Tensor

DTYPES = {"fp32": "float32", "bf16": "bfloat16"}
END_OF_TEXT = "<|endoftext|>"
SHARD_BYTES = 5 * 10**9  # one file up to here, as Hugging Face writes them


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What was written. ``tokenizer``: whether one was."""

    path: Path
    step: int
    dtype: str
    bytes: int
    tokenizer: bool


def export(source: Path, out: Path, dtype: str | None = None, *, with_tokenizer: bool = True) -> ExportResult:
    """Write the checkpoint ``source`` to the new or empty directory ``out``, completely or not at all.

    ``dtype``: a key of ``DTYPES``, or None to keep the checkpoint's. ``with_tokenizer``: also write its tokenizer, if
    it has one. Raises ``UserError``.
    """
    import torch

    try:
        out = Path(os.path.realpath(expand(str(out), "export")))
        check_new_dir(out)
        state, metadata = checkpoint.load(source, ("model",))
        spec = checkpoint.spec_of(source)
        check_tensors(source, spec.model.config, str(source))
        tensors = state["model"]
        if spec.model.config.tie_word_embeddings:
            # transformers ties it again; mlx-lm does not tie heads and needs this tensor
            tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        kind = getattr(torch, DTYPES[dtype]) if dtype else tensors["model.embed_tokens.weight"].dtype
        _check_free_space(out, sum(t.numel() for t in tensors.values()) * kind.itemsize)
        tokenizer = _tokenizer(source, spec.model.config.vocab_size) if with_tokenizer else None
        documents = _documents(spec, str(kind).removeprefix("torch."), tokenizer)
        copies = [] if tokenizer is None else [source / "tokenizer.json"]
        size = _publish(out, documents, copies, tensors, kind)
    except OSError as error:
        raise UserError(f"{out}: {error.strerror or error}; nothing was written") from None
    return ExportResult(out, int(metadata["step"]), documents["config.json"]["dtype"], size, tokenizer is not None)


def _publish(
    out: Path, documents: dict[str, dict[str, Any]], copies: list[Path], tensors: dict[str, Tensor], dtype: torch.dtype
) -> int:
    """Write everything to a temporary directory and rename it; return its bytes. Raises ``OSError``."""
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    made = [folder for folder in out.parents if not folder.exists()]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        for name, content in documents.items():
            (temporary / name).write_text(json.dumps(content, indent=2) + "\n")
        for file in copies:
            shutil.copyfile(file, temporary / file.name)
        _write_weights(temporary, tensors, dtype)
        written = list(temporary.iterdir())
        for file in written:
            # safetensors creates files that only the owner can read
            shutil.copymode(temporary / "config.json", file)
            _fsync(file)
        size = sum(file.stat().st_size for file in written)
        os.rename(temporary, out)
        return size
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        with contextlib.suppress(OSError):  # not empty after a success
            for folder in made:
                folder.rmdir()


def _check_free_space(out: Path, needed: int) -> None:
    existing = next(folder for folder in out.parents if folder.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise UserError(
            f"{out}: needs {needed / 1e6:,.1f} MB, {existing} has {free / 1e6:,.1f} MB free; free some space"
        )


def _tokenizer(source: Path, vocab: int) -> Any:
    """Return the checkpoint's tokenizer or None. Raises ``UserError`` where it has ids beyond the model's."""
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


def _documents(spec: RunSpec, dtype: str, tokenizer: Any) -> dict[str, dict[str, Any]]:
    """Return the JSON files beside the weights, by name."""
    context = spec.batch.context
    end = tokenizer.token_to_id(END_OF_TEXT) if tokenizer is not None else None
    ends = {} if end is None else {"eos_token_id": end}
    documents = {
        # transformers 5 and newer read dtype, everyone else torch_dtype
        "config.json": {**to_hf_config(spec.model.config, context), **ends, "dtype": dtype, "torch_dtype": dtype},
        "generation_config.json": ends | ({} if end is None else {"pad_token_id": end}),
    }
    if tokenizer is not None:
        documents["tokenizer_config.json"] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": context,
            "clean_up_tokenization_spaces": False,
            **({} if end is None else {"eos_token": END_OF_TEXT}),
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


def _fsync(file: Path) -> None:
    with open(file, "rb") as stream:
        os.fsync(stream.fileno())
