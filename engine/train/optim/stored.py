"""What a checkpoint holds of an optimizer: plain tensors that need no library to be read.

``<moment>/<parameter>`` in fp32, or where it is kept in 8 bits ``<moment>.codes/<parameter>`` (uint8, shaped as the
parameter), ``<moment>.scale/<parameter>`` (one for each block of the flattened codes) and ``<moment>.levels`` (the
value of each of the 256 codes, the same for all parameters): value = levels[code] * scale of its block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Packed:
    """A tensor in 8 bits a value."""

    codes: Tensor
    scale: Tensor
    levels: Tensor

    def unpack(self) -> Tensor:
        """The values in fp32."""
        blocks = self.levels[self.codes.int()].view(self.scale.numel(), -1) * self.scale[:, None]
        return blocks.view(self.codes.shape)


Stored = Tensor | Packed


def to_tensors(moment: str, name: str, stored: Stored) -> dict[str, Tensor]:
    """The entries of one moment of the parameter ``name``."""
    if isinstance(stored, Tensor):
        return {f"{moment}/{name}": stored}
    return {
        f"{moment}.codes/{name}": stored.codes,
        f"{moment}.scale/{name}": stored.scale,
        f"{moment}.levels": stored.levels,
    }


def from_tensors(moment: str, name: str, tensors: Mapping[str, Tensor]) -> Stored | None:
    """The inverse of ``to_tensors``; None where there is nothing of it."""
    if (plain := tensors.get(f"{moment}/{name}")) is not None:
        return plain
    parts = [tensors.get(key) for key in (f"{moment}.codes/{name}", f"{moment}.scale/{name}", f"{moment}.levels")]
    return Packed(*parts) if all(part is not None for part in parts) else None  # type: ignore[arg-type]


def unpacked(stored: Stored) -> Tensor:
    """The values in fp32."""
    return stored.unpack() if isinstance(stored, Packed) else stored.to(torch.float32)
