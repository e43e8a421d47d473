"""Gives the tensors of other programs our names and layout: those that torch.compile and mlx-lm save under others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from profiles.errors import UserError
from profiles.printable import brief_key

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
_COMPILED = "_orig_mod."  # torch.compile puts it before the names of a module that it wraps
_KEY, _VALUE, _BOTH = "self_attn.embed_q.weight", "self_attn.unembed_out.weight", "self_attn.kv_b_proj.weight"


def plain_names(tensors: Mapping[str, T], label: str) -> dict[str, T]:
    """Return ``tensors`` without the prefixes of torch.compile. Raise ``UserError`` if two are then one."""
    plain: dict[str, T] = {}
    for name, tensor in tensors.items():
        short = name.replace(_COMPILED, "")
        if short in plain:
            raise UserError(f"{label}: {brief_key(short)} is there twice, compiled and not; remove one")
        plain[short] = tensor
    return plain


def joined_headers(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return the names, dtypes and shapes that the tensors have after ``joined``; what does not fit stays apart."""
    whole = dict(found)
    for key, value, both in _pairs(found):
        (heads, latent, nope), (other, width, inner) = _shape(found[key]), _shape(found[value])
        if (heads, latent) == (other, inner) and heads and found[key]["dtype"] == found[value]["dtype"]:
            del whole[key], whole[value]
            whole[both] = {**found[key], "shape": (heads * (nope + width), latent)}
    return whole


def joined(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ``tensors`` with ``kv_b_proj`` (H * (N + E), L) made of mlx-lm's parts, (H, L, N) and (H, E, L)."""
    import torch

    whole = dict(tensors)
    for key, value, both in _pairs(tensors):
        parts = [whole.pop(key).transpose(1, 2), whole.pop(value)]
        whole[both] = torch.cat(parts, dim=1).flatten(0, 1)
    return whole


def _pairs(names: Mapping[str, object]) -> list[tuple[str, str, str]]:
    keys = [name for name in names if name.endswith(_KEY)]
    pairs = [(key, key.replace(_KEY, _VALUE), key.replace(_KEY, _BOTH)) for key in keys]
    return [pair for pair in pairs if pair[1] in names and pair[2] not in names]


def _shape(header: Mapping[str, Any]) -> tuple[int, int, int]:
    shape = tuple(header["shape"])
    return shape if len(shape) == 3 else (0, 0, 0)
