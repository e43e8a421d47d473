"""Opens the train and val splits that a spec names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from profiles.spec import RunSpec

if TYPE_CHECKING:
    from data.dataset import PackedBinDataset


def check_data(spec: RunSpec, seconds: float = 0.0) -> None:
    """Open the splits as the trainer will, and look for ids outside the vocabulary for about ``seconds``.

    Raise ``UserError`` for what is missing, damaged or foreign.
    """
    for split in ("train", "val") if spec.train.val_every else ("train",):
        data = open_split(spec, split)
        if seconds:
            data.check_ids(seconds)


def open_split(spec: RunSpec, split: str) -> PackedBinDataset:
    """Open one split with the context, vocabulary and seed of ``spec``. Raise ``UserError``."""
    from data.dataset import PackedBinDataset  # imports numpy, which other users of this module do not need

    return PackedBinDataset(
        Path(spec.data.root),
        spec.data.phase,
        split,
        spec.batch.context,
        spec.model.config.vocab_size,
        spec.train.seed,
    )
