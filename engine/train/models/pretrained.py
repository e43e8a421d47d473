"""Finds the weights for --init-from (a checkpoint or a Hugging Face directory), checks and loads them.

Everything but ``load_weights`` reads only headers and JSON, so that errors are reported before anything is created or
torch is imported.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Set
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.splits import tokenizer_of
from data.tokenizer import same_ids
from engine.checkpoints import checkpoint
from engine.train.models.weight_names import joined, joined_headers, plain_names
from model.hf import from_hf_config
from model.shapes import parameter_shapes
from profiles.errors import UserError
from profiles.model_config import ModelConfig
from profiles.printable import brief_key
from profiles.reader import Table, open_regular, parse_json, read_json
from profiles.spec import RunSpec

if TYPE_CHECKING:
    from torch import Tensor

MAX_HEADER = 16 << 20  # bytes; a header takes about 150 a tensor
_ANOTHER = "take another copy"
INDEX = "model.safetensors.index.json"
WEIGHTS, EMA = "model", "ema"  # files of a checkpoint that hold a whole model
_DTYPES = ("F64", "F32", "F16", "BF16")
# May differ from the weights' config: what a new stage of training may change, and what affects initialization only.
_ROPE = {"rope_theta", *(f.name for f in fields(ModelConfig) if f.name.startswith("yarn_"))}
_MAY_DIFFER = {"initializer_range", *_ROPE}
# What is taken from the weights where the user did not give it: for a new run everything; for one that continues what
# has a default, because another shape is another model.
_TAKEN = {f.name for f in fields(ModelConfig)} - {"initializer_range"}
_OPTIONAL = {f.name for f in fields(ModelConfig) if f.default is not MISSING} & _TAKEN
_SHAPE = _TAKEN - _OPTIONAL
_QUANTISED = ("quantization", "quantization_config")  # mlx-lm, transformers


def is_hugging_face(path: Path) -> bool:
    return (path / "config.json").is_file() and not (path / "trainer.json").is_file()


def read_config(path: Path) -> ModelConfig:
    """Return the model config of the weights in ``path``. Raises ``UserError``."""
    if not is_hugging_face(path):
        return checkpoint.spec_of(path).model.config
    raw = read_json(path / "config.json", remedy=_ANOTHER)
    if any(raw.get(key) for key in _QUANTISED):
        raise UserError(f"{path}/config.json: its weights are quantised; take those that were not")
    try:
        return from_hf_config(raw)
    except UserError as error:
        raise UserError(f"{path}/{error}") from None


def adopt_config(path: Path, spec: RunSpec, given: Set[str], option: str) -> tuple[RunSpec, list[str]]:
    """Return ``spec`` with the model settings of the weights in ``path``, and lines that say what that changes.

    Without its rope or its norms a model computes another function. So every setting that the user did not give is
    taken from the weights, with ``--init-from`` the shape too; ``given`` holds the dotted keys that the user did. Of
    those only rope may differ, as for a longer context. ``option`` is the one that names the weights. Raises
    ``UserError``.
    """
    there, here = read_config(path), spec.model.config
    names = _TAKEN if option == "--init-from" else _OPTIONAL
    differing = {name: getattr(there, name) for name in names if getattr(there, name) != getattr(here, name)}
    taken = {name: value for name, value in sorted(differing.items()) if f"model.{name}" not in given}
    said = []
    if taken:
        values = ", ".join(f"{name} = {json.dumps(value)}" for name, value in taken.items())
        said.append(f"{option} {path}: takes {values} from the weights")
    for name in sorted(_ROPE & (differing.keys() - taken.keys())):
        ours, theirs = json.dumps(getattr(here, name)), json.dumps(differing[name])
        said.append(f"{option} {path}: {name} becomes {ours}, as you set it; the weights were trained with {theirs}")
    model: dict[str, Any] = {"config": replace(here, **taken)}
    if taken.keys() & _SHAPE:
        model["name"] = _model_name(path)  # it is no longer the one of the profile
    adopted = spec.with_values(f"{option} {path}", model=model)
    _check_config(path, there, adopted, option)
    return adopted, said


def _model_name(path: Path) -> str:
    if is_hugging_face(path):
        return brief_key(Path(os.path.abspath(path)).name)
    return checkpoint.spec_of(path).model.name


def check_compatible(path: Path, spec: RunSpec) -> None:
    """Check that the run ``spec`` can start from these weights: config, tensors, tokenizer. Raises ``UserError``."""
    _check_config(path, read_config(path), spec, "--init-from")
    check_tensors(path, spec.model.config, f"--init-from {path}")
    _check_tokenizer(path, tokenizer_of(spec))


def load_weights(path: Path, part: str = WEIGHTS) -> dict[str, Tensor]:
    """Return every tensor by name, memory-mapped on the CPU. Raises ``UserError``.

    ``part``: which of a checkpoint's, ``WEIGHTS`` or their average, ``EMA``.
    """
    if not is_hugging_face(path):
        tensors: dict[str, Tensor] = checkpoint.load(path, (part,))[0][part]
        return tensors
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = {name: tensor for file in _files(path) for name, tensor in load_file(file).items()}
        return joined(plain_names(tensors, str(path)))
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read: {error}; take another copy") from None


def check_average(path: Path) -> None:
    """Check that ``path`` is a checkpoint with an average of its weights. Raises ``UserError``."""
    if not (path / f"{EMA}.safetensors").is_file():
        raise UserError(
            f"--ema: {path} has no average of its weights; a run with optim.ema = 0.999 keeps one, or leave out --ema"
        )


def _check_config(path: Path, there: ModelConfig, spec: RunSpec, option: str) -> None:
    here = spec.model.config
    names = [f.name for f in fields(ModelConfig) if f.name not in _MAY_DIFFER]
    differing = [name for name in names if getattr(there, name) != getattr(here, name)]
    if not differing:
        return
    name = differing[0]
    theirs, ours = (json.dumps(getattr(config, name)) for config in (there, here))
    more = f" ({', '.join(differing[1:])} differ too)" if differing[1:] else ""
    fix = f"use -s model.{name}={theirs} or" if len(differing) == 1 and theirs != "null" else "use"
    raise UserError(
        f"{option} {path}: {name}: {theirs} there, {ours} in model {spec.model.name}{more};"
        f" {fix} a profile with that model"
    )


def check_tensors(path: Path, config: ModelConfig, label: str, part: str = WEIGHTS) -> None:
    """Check name, shape and dtype of every tensor in ``path``. Raises ``UserError`` that begins with ``label``."""
    found: dict[str, Mapping[str, Any]] = {}
    for file in _files(path) if part == WEIGHTS else [path / f"{part}.safetensors"]:
        found |= _header(file)
    found = joined_headers(plain_names(found, label))
    wanted = parameter_shapes(config)
    for name, shape in wanted.items():
        if name not in found:
            raise UserError(f"{label}: {name} is missing; take a whole copy")
        there = found[name]["shape"]
        if there != shape:
            raise UserError(f"{label}: {name} is {there} and should be {shape}; its configuration is another model's")
        if found[name]["dtype"] not in _DTYPES:
            raise UserError(
                f"{label}: {name} is of dtype {brief_key(found[name]['dtype'])}, not one of {', '.join(_DTYPES)};"
                " take the weights that were not quantised"
            )
    # A copy of a tied head and the rope tables of old files are redundant.
    extra = [n for n in found if n not in wanted and n != "lm_head.weight" and not n.endswith("rotary_emb.inv_freq")]
    if extra:
        raise UserError(
            f"{label}: {brief_key(extra[0])} is not part of this model; take weights of the same architecture"
        )


def _files(path: Path) -> list[Path]:
    """Return the weight files: the single one, or those in the index. Raises ``UserError``."""
    single = path / "model.safetensors"
    if single.is_file():
        return [single]
    if not (path / INDEX).is_file():
        raise UserError(f"{path}: holds neither model.safetensors nor {INDEX}; convert its weights to safetensors")
    named = read_json(path / INDEX, remedy=_ANOTHER).get("weight_map")
    names = sorted(set(named.values())) if isinstance(named, dict) and all(map(_plain, named.values())) else []
    for name in names:
        if not os.path.isfile(path / name):  # unlike Path.is_file, False for what no file can be named
            raise UserError(f"{path}: {brief_key(name)} is missing, which {INDEX} names; take a whole copy")
    if not names:
        raise UserError(f"{path}/{INDEX}: is damaged; {_ANOTHER}")
    return [path / name for name in names]


def _plain(name: object) -> bool:
    return isinstance(name, str) and Path(name).name == name


def _header(file: Path) -> dict[str, Mapping[str, Any]]:
    """Return name → dtype and shape of each tensor. Raises ``UserError`` where the file has another length."""
    try:
        with open_regular(file) as stream:
            length, size = int.from_bytes(stream.read(8), "little"), os.fstat(stream.fileno()).st_size
            text = stream.read(length) if length <= min(size, MAX_HEADER) else b""
        header = parse_json(text.decode(), str(file), _ANOTHER)
    except (OSError, UnicodeDecodeError, UserError):
        raise UserError(f"{file}: is damaged or not whole; {_ANOTHER}") from None
    table = Table(header, str(file), _ANOTHER)
    tensors: dict[str, Mapping[str, Any]] = {}
    end = 0
    for name in header:
        if name == "__metadata__":
            continue
        entry = table.table(name)
        shape, offsets = entry.integers("shape"), entry.integers("data_offsets")
        end = max((end, *offsets))
        tensors[name] = {"dtype": entry.text("dtype"), "shape": shape}
    if 8 + length + end != size or not tensors:
        raise UserError(f"{file}: is damaged or not whole; {_ANOTHER}")
    return tensors


def _check_tokenizer(path: Path, ours: Path) -> None:
    """Raise ``UserError`` where the data, of the tokenizer ``ours``, and the weights have different tokenizers."""
    if not same_ids(path / "tokenizer.json", ours):
        raise UserError(
            f"--init-from {path}: its tokenizer.json is not the one that packed {ours.parent},"
            " so the ids mean other texts; pack the data with its tokenizer, or take other weights"
        )
