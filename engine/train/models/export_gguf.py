"""Exports a checkpoint as a GGUF file, which llama.cpp and the programs built on it run."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.checkpoints.atomic_write import check_new_file
from engine.train.models.export import ExportResult
from engine.train.models.export_source import ExportSource, read_source
from engine.train.models.gguf_tokenizer import tokenizer_keys
from engine.train.models.publish import check_free_space, publish_file
from model.gguf import ARCHITECTURE, GgufTensor, gguf_keys, gguf_tensors
from profiles.errors import UserError
from profiles.install_command import install_extra
from profiles.paths import expand

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from gguf import GGMLQuantizationType, GGUFWriter

# Our name of a dtype: llama.cpp's number of a file that is mostly of it.
FILE_TYPES = {"fp32": 0, "f16": 1, "q8_0": 7, "bf16": 32}
DEFAULT_DTYPE = "f16"
Q8_BLOCK = 32  # values that share a scale: a row is a multiple of it


@dataclass(frozen=True, slots=True)
class _Entry:
    """A tensor of the file, its ``shape`` and ``kind``, a ``GGMLQuantizationType``."""

    tensor: GgufTensor
    shape: tuple[int, ...]
    kind: GGMLQuantizationType


def export_gguf(
    checkpoint: Path, out: Path, dtype: str | None = None, *, with_tokenizer: bool = True, ema: bool = False
) -> ExportResult:
    """Write ``checkpoint`` to the new file ``out``, completely or not at all.

    ``dtype``: a key of ``FILE_TYPES``, or None for f16. Norms are always float32; in a q8_0 file, matrices whose rows
    are no multiple of 32 are float16. ``with_tokenizer``: also write the checkpoint's tokenizer, if it has one. With
    ``ema`` the average of the weights is written. Raises ``UserError``.
    """
    _check_installed()
    from gguf import GGUFWriter

    dtype = dtype or DEFAULT_DTYPE
    try:
        out = Path(os.path.realpath(expand(str(out), "export")))
        check_new_file(out)
        source = read_source(checkpoint, with_tokenizer=with_tokenizer, ema=ema)
        keys = _keys(source, dtype)
        entries = list(_entries(source, dtype))
        check_free_space(out, sum(_bytes(entry) for entry in entries))

        def write(path: Path) -> None:
            writer = GGUFWriter(path, ARCHITECTURE)
            try:
                _write(writer, source, keys, entries)
            finally:
                writer.close()

        size = publish_file(out, write)
    except OSError as error:
        raise UserError(f"{out}: {error.strerror or error}; nothing was written") from None
    return ExportResult(out, source.step, dtype, size, source.tokenizer is not None)


def _check_installed() -> None:
    from importlib.util import find_spec

    if find_spec("gguf") is None:
        raise UserError(f"--format gguf: the package gguf is missing; install it with {install_extra('gguf')}")


def _keys(source: ExportSource, dtype: str) -> dict[str, Any]:
    """Return every key of the file but the architecture, which the writer adds. Raise ``UserError``."""
    config = source.spec.model.config
    keys: dict[str, Any] = {
        "general.name": source.spec.model.name,
        "general.file_type": FILE_TYPES[dtype],
        "general.quantization_version": 2,
    }
    keys |= {f"{ARCHITECTURE}.{key}": value for key, value in gguf_keys(config, source.spec.batch.context).items()}
    if source.tokenizer is None:
        return {**keys, "tokenizer.ggml.model": "none"}
    file = str(source.path / "tokenizer.json")
    tokenizer = tokenizer_keys(source.tokenizer, config.vocab_size, source.end, file)
    return keys | {f"tokenizer.ggml.{key}": value for key, value in tokenizer.items()}


def _entries(source: ExportSource, dtype: str) -> Iterator[_Entry]:
    from gguf import GGMLQuantizationType as Kind

    config = source.spec.model.config
    matrix = {"fp32": Kind.F32, "f16": Kind.F16, "bf16": Kind.BF16, "q8_0": Kind.Q8_0}[dtype]
    for tensor in gguf_tensors(config):
        shape = tuple(tensor.of(source.tensors[tensor.source], config).shape)
        if len(shape) == 1:
            kind = Kind.F32
        elif matrix is Kind.Q8_0 and shape[-1] % Q8_BLOCK:
            kind = Kind.F16
        else:
            kind = matrix
        yield _Entry(tensor, shape, kind)


def _write(writer: GGUFWriter, source: ExportSource, keys: dict[str, Any], entries: list[_Entry]) -> None:
    """Write header, keys and tensors; of the tensors one at a time is converted. Raise ``UserError``, ``OSError``."""
    import numpy as np
    from gguf.quants import quant_shape_to_byte_shape

    for key, value in keys.items():
        _add(writer, key, value)
    for entry in entries:
        raw = quant_shape_to_byte_shape(entry.shape, entry.kind)
        writer.add_tensor_info(entry.tensor.name, raw, np.dtype(np.uint8), _bytes(entry), raw_dtype=entry.kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for entry in entries:
        writer.write_tensor_data(_data(source, entry))


def _add(writer: GGUFWriter, key: str, value: Any) -> None:
    add: dict[type, Callable[[str, Any], None]] = {
        bool: writer.add_bool,
        int: writer.add_uint32,
        float: writer.add_float32,
        str: writer.add_string,
        list: writer.add_array,
    }
    add[type(value)](key, value)


def _bytes(entry: _Entry) -> int:
    from gguf import GGML_QUANT_SIZES

    block, size = GGML_QUANT_SIZES[entry.kind]
    return math.prod(entry.shape) // block * size


def _data(source: ExportSource, entry: _Entry) -> npt.NDArray[np.uint8]:
    """Return the bytes of a tensor as the file has them. Raise ``UserError`` where the dtype cannot hold a value."""
    import numpy as np
    from gguf import GGMLQuantizationType as Kind
    from gguf.quants import quantize

    weight = entry.tensor.of(source.tensors[entry.tensor.source], source.spec.model.config)
    values = weight.float().contiguous().numpy()
    if entry.kind in (Kind.F16, Kind.Q8_0) and np.abs(values).max() > np.finfo(np.float16).max:
        name = entry.tensor.source
        raise UserError(f"{source.path}: {name} has values that float16 cannot hold; export with --dtype bf16")
    data: npt.NDArray[np.uint8] = quantize(values, entry.kind).view(np.uint8)
    return data
