"""Converts optimizer states to and from the plain tensors of a checkpoint, which need no library to be read.

``<moment>/<parameter>`` in fp32, or for 8-bit states ``<moment>.codes/<parameter>`` (uint8, shaped as the parameter),
``<moment>.scale/<parameter>`` (one per block of the flattened codes) and ``<moment>.levels`` (the value of each of the
256 codes, the same for all parameters): value = levels[code] * scale of its block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Quantized:
    """A tensor quantized to 8 bits per value."""

    codes: Tensor
    scale: Tensor
    levels: Tensor

    def dequantize(self) -> Tensor:
        """Return the values in fp32."""
        blocks = self.levels[self.codes.int()].view(self.scale.numel(), -1) * self.scale[:, None]
        return blocks.view(self.codes.shape)


Stored = Tensor | Quantized


def to_tensors(moment: str, name: str, stored: Stored) -> dict[str, Tensor]:
    """Return the checkpoint's tensors for one moment of the parameter ``name``."""
    if isinstance(stored, Tensor):
        return {f"{moment}/{name}": stored}
    return {
        f"{moment}.codes/{name}": stored.codes,
        f"{moment}.scale/{name}": stored.scale,
        f"{moment}.levels": stored.levels,
    }


def from_tensors(moment: str, name: str, tensors: Mapping[str, Tensor]) -> Stored | None:
    """Return the moment that ``to_tensors`` wrote, or None where it is missing."""
    if (plain := tensors.get(f"{moment}/{name}")) is not None:
        return plain
    parts = [tensors.get(key) for key in (f"{moment}.codes/{name}", f"{moment}.scale/{name}", f"{moment}.levels")]
    return Quantized(*parts) if all(part is not None for part in parts) else None  # type: ignore[arg-type]


def dequantized(stored: Stored) -> Tensor:
    """Return the values in fp32."""
    return stored.dequantize() if isinstance(stored, Quantized) else stored.to(torch.float32)
