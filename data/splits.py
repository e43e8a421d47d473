"""Opens and identifies the train and val splits that a spec names."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from profiles.errors import UserError
from profiles.paths import expand
from profiles.reader import Table
from profiles.spec import RunSpec

if TYPE_CHECKING:
    from data.dataset import PackedBinDataset
    from data.fingerprint import Fingerprint
    from data.usage import DataUsage

# The functions import numpy, which other users of this module do not need.


def phases_of(spec: RunSpec) -> dict[str, Path]:
    """Return the folders of the phases that a run of ``spec`` reads, by their names. Raise ``UserError``."""
    root = expand(spec.data.root, "data.root")
    return {phase: root / phase for phase in spec.data.sources or (spec.data.phase,)}


def tokenizer_of(spec: RunSpec) -> Path:
    """Return the tokenizer of the data; where no phase has one, where it would be. Raise ``UserError``."""
    paths = [folder / "tokenizer.json" for folder in phases_of(spec).values()]
    return next((path for path in paths if os.path.isfile(path)), paths[0])


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
    """Open one split with the context, vocabulary and seed of ``spec``. Raise ``UserError``.

    Of a mixture every source must have training data, and at least one must have a split for validation.
    """
    from data.dataset import PackedBinDataset, Source
    from data.shards import open_shards
    from data.split_files import find_files

    vocab_size, root = spec.model.config.vocab_size, expand(spec.data.root, "data.root")
    weights = spec.data.sources or {spec.data.phase: 1.0}
    for phase in spec.data.sources:
        if not os.path.isdir(root / phase):
            raise UserError(f"data.sources: {root / phase} is not a folder; each source is a phase in data.root")
    having = [phase for phase in weights if split == "train" or find_files(root / phase, split)]
    sources = [
        Source(phase if spec.data.sources else "", weights[phase], open_shards(root, phase, split, vocab_size))
        for phase in having or weights
    ]
    return PackedBinDataset(tuple(sources), spec.batch.context, vocab_size, spec.train.seed)


def open_splits(spec: RunSpec) -> dict[str, PackedBinDataset]:
    """Open the splits that a run of ``spec`` reads: "train", and "val" if it validates. Raise ``UserError``."""
    document_end(spec)
    return {split: open_split(spec, split) for split in (("train", "val") if spec.train.val_every else ("train",))}


def document_end(spec: RunSpec) -> int | None:
    """Return the id that ends a document, from ``dataset.json``; None with ``data.documents = "join"``.

    Raise ``UserError`` if it is needed and not known.
    """
    if spec.data.documents == "join":
        return None
    ends = {phase: _document_end_of(folder) for phase, folder in phases_of(spec).items()}
    end, vocabulary = next(iter(ends.values())), spec.model.config.vocab_size
    if len(set(ends.values())) > 1:
        found = ", ".join(f"{phase} {id}" for phase, id in ends.items())
        raise UserError(f"data.documents: mask needs sources with one eot_id: {found}; use -s data.documents=join")
    if end >= vocabulary:
        raise UserError(f"data.documents: eot_id {end} is outside the model's vocabulary of {vocabulary}")
    return end


def _document_end_of(folder: Path) -> int:
    from data.shards import DATASET_JSON, read_manifest

    path, manifest = folder / DATASET_JSON, read_manifest(folder)
    if manifest is None or manifest.raw.get("eot_id") is None:
        raise UserError(
            f"data.documents: mask needs the id that ends a document, eot_id in {path}, which "
            f"{'is missing' if manifest is None else 'lacks it'}: write it there, or use -s data.documents=join"
        )
    return Table(manifest.raw, str(path)).integer("eot_id")


def fingerprint_of(spec: RunSpec, opened: dict[str, PackedBinDataset]) -> Fingerprint:
    """Return the fingerprint of ``opened``, which ``open_splits`` returned. Raise ``UserError``."""
    from data.fingerprint import fingerprint, mixture_fingerprint

    found = {
        phase: fingerprint(
            folder,
            {
                split: source.shards.shards
                for split, data in opened.items()
                for source in data.sources
                if source.name in ("", phase)
            },
        )
        for phase, folder in phases_of(spec).items()
    }
    return mixture_fingerprint(found, spec.data.sources) if spec.data.sources else found[spec.data.phase]


def data_usage(spec: RunSpec) -> DataUsage:
    """Return what a run of ``spec`` reads of its data. Raise ``UserError``."""
    from data.shards import missing_shards
    from data.split_files import files_not_read
    from data.text_bytes import miscounts
    from data.usage import blank_ends, sources_of, usage_of

    root = expand(spec.data.root, "data.root")
    ignored = sum(len(files_not_read(root, phase, "train")) for phase in phases_of(spec))
    missing = sum(len(missing_shards(root, phase, "train")) for phase in phases_of(spec))
    opened = open_splits(spec)
    train, *val = opened.values()
    validated = val[0].shards if val else ()
    read = spec.train.last_step * spec.batch.sequences
    usage = replace(usage_of(train.shards, validated, spec.batch.context, read, ignored), missing=missing)
    blank = tuple(name for source in train.sources for name in blank_ends(source.shards))
    usage = replace(usage, miscounted=tuple(miscounts(spec, opened)), blank=blank)
    return replace(usage, sources=sources_of(train, read)) if spec.data.sources else usage
