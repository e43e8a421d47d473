"""Opens the splits that a spec names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from profiles.spec import RunSpec

if TYPE_CHECKING:
    from data.dataset import PackedBinDataset


def check_data(spec: RunSpec) -> None:
    """Open both splits as the trainer will. Raises ``UserError`` naming what is missing or damaged."""
    for split in ("train", "val") if spec.train.val_every else ("train",):
        open_split(spec, split)


def open_split(spec: RunSpec, split: str) -> PackedBinDataset:
    """The windows of one split as ``spec`` wants them. Raises ``UserError``."""
    from data.dataset import PackedBinDataset  # numpy: only where data is looked at

    return PackedBinDataset(
        Path(spec.data.root),
        spec.data.phase,
        split,
        spec.batch.context,
        spec.model.config.vocab_size,
        spec.train.seed,
    )
