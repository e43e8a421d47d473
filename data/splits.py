"""Opens and identifies the train and val splits that a spec names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from profiles.paths import expand
from profiles.spec import RunSpec

if TYPE_CHECKING:
    from data.dataset import PackedBinDataset
    from data.fingerprint import Fingerprint
    from data.usage import DataUsage

# The functions import numpy, which other users of this module do not need.


def check_data(spec: RunSpec) -> None:
    """Open the splits as the trainer will. Raise ``UserError`` for what is missing, damaged or foreign."""
    open_splits(spec)


def check_ids(spec: RunSpec, seconds: float) -> float:
    """Look for ids outside the vocabulary, for about ``seconds`` a split; return the fraction of tokens known as good.

    Raise ``UserError`` for such an id, and as ``check_data``.
    """
    opened = open_splits(spec).values()
    return sum(data.check_ids(seconds) for data in opened) / sum(data.tokens for data in opened)


def open_split(spec: RunSpec, split: str) -> PackedBinDataset:
    """Open one split with the context, vocabulary and seed of ``spec``. Raise ``UserError``."""
    from data.dataset import PackedBinDataset
    from data.shards import open_shards

    vocab_size = spec.model.config.vocab_size
    shards = open_shards(_root(spec), spec.data.phase, split, vocab_size)
    return PackedBinDataset(shards, spec.batch.context, vocab_size, spec.train.seed)


def open_splits(spec: RunSpec) -> dict[str, PackedBinDataset]:
    """Open the splits that a run of ``spec`` reads: "train", and "val" if it validates. Raise ``UserError``."""
    return {split: open_split(spec, split) for split in (("train", "val") if spec.train.val_every else ("train",))}


def fingerprint_of(spec: RunSpec, opened: dict[str, PackedBinDataset]) -> Fingerprint:
    """Return the fingerprint of ``opened``, which ``open_splits`` returned. Raise ``UserError``."""
    from data.fingerprint import fingerprint

    return fingerprint(_root(spec) / spec.data.phase, {split: data.shards for split, data in opened.items()})


def data_usage(spec: RunSpec) -> DataUsage:
    """Return what a run of ``spec`` reads of its data. Raise ``UserError``."""
    from data.split_files import files_not_read
    from data.usage import usage_of

    train, *val = (data.shards for data in open_splits(spec).values())
    ignored = len(files_not_read(_root(spec), spec.data.phase, "train"))
    return usage_of(train, sum(val, ()), spec.batch.context, spec.train.steps * spec.batch.sequences, ignored)


def _root(spec: RunSpec) -> Path:
    return expand(spec.data.root, "data.root")
