"""Builds the built-in corpus: Python's standard library, packed with a tokenizer trained on it.

Every machine that runs mla-tui has these sources, so a first run needs no download.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

from data.new_folder import new_folder
from data.pack.batches import Batch
from data.pack.encode_batch import encode_batch
from data.pack.encoder import Encoder
from data.pack.journal import write_durable
from data.pack.shard_writer import ShardState, ShardWriter
from data.pack.sources import Source
from data.pack.split_rule import SPLITS
from data.pack.target import sha256_of
from data.pack.training import MIN_SIZE, train_tokenizer
from data.pack.vocabulary import TOKENIZER_JSON, load_vocabulary
from data.shards import DATASET_JSON, read_manifest
from profiles.errors import UserError

KIND = "python-sources"
_SKIPPED = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
# One document in 16 is for validation: enough windows for a stable mean, few lost for training.
_VAL_EVERY = 16


def build_corpus(
    root: Path,
    phase: str = "phase1",
    vocab_size: int = 4096,
    report: Callable[[str], object] = lambda text: None,
    source: Path | None = None,
) -> Path:
    """Pack the ``.py`` files under ``source`` (default: the standard library) into ``<root>/<phase>`` and return it.

    The hash of a file's relative path decides whether it is for train or val; each file ends with the end-of-text id.
    An existing corpus of the same vocabulary is verified and kept; other existing files are never replaced. The
    directory is built under a temporary name and renamed, so it is never incomplete. ``report`` receives lines of
    progress. Raise ``UserError`` if the source is too small, the target exists, or the disk refuses.
    """
    if not MIN_SIZE <= vocab_size <= 65536:
        raise UserError(f"vocab_size: {vocab_size} is not in {MIN_SIZE}..65536")
    target = root / phase
    try:
        if _built(target, vocab_size):
            report(f"{target}: already built")
            return target
        documents = _documents(source or Path(sysconfig.get_path("stdlib")))
        with new_folder(target) as building:
            _write(building, phase, vocab_size, documents, report)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST) and _built(target, vocab_size):
            report(f"{target}: another process has built it")
            return target
        raise UserError(
            f"{target}: cannot write the corpus ({error.strerror}): free some space or choose another directory"
        ) from error
    return target


def _built(target: Path, vocab_size: int) -> bool:
    """Return whether ``target`` holds this corpus; False if it is empty. Raise ``UserError`` for other files."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    remedy = "move it away, or choose another directory or phase"
    manifest = read_manifest(target) if target.is_dir() else None
    if manifest is None or manifest.raw.get("kind") != KIND:
        raise UserError(f"{target}: exists and is not the built-in corpus: {remedy}")
    if manifest.vocab_size != vocab_size:
        raise UserError(f"{target}: was built with a vocabulary of {manifest.vocab_size}, not {vocab_size}: {remedy}")
    checksums = manifest.raw.get("sha256")
    if not isinstance(checksums, dict) or not checksums:
        raise UserError(f"{manifest.path}: has no checksums: {remedy}, then build again")
    for name, checksum in checksums.items():
        path = target / name
        if not path.is_file() or sha256_of(path) != checksum:
            raise UserError(f"{path}: is missing or its checksum differs: {remedy}, then build again")
    return True


def _documents(source: Path) -> dict[str, list[str]]:
    """Return the texts of each split, ordered by relative path. Raise ``UserError`` if a split would be empty."""
    documents: dict[str, list[str]] = {split: [] for split in SPLITS}
    for name in sorted(_names(source)):
        try:
            text = (source / name).read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            continue  # a few old files have other encodings; guessing them would add noise
        if text:
            documents[split_of(name)].append(text)
    for split, texts in documents.items():
        if not texts:
            raise UserError(f"{source}: has no .py file for the {split} split: choose a directory with more of them")
    return documents


def _names(source: Path) -> Iterator[str]:
    """Yield the relative POSIX paths of the sources, without tests and third-party packages."""
    for folder, subfolders, files in os.walk(source):
        subfolders[:] = [name for name in subfolders if name not in _SKIPPED]
        for name in files:
            if name.endswith(".py"):
                yield (Path(folder) / name).relative_to(source).as_posix()


def split_of(name: str) -> str:
    """Return the split of a document, a pure function of its relative path: a rebuild never moves a file."""
    return "val" if hashlib.sha256(name.encode()).digest()[0] % _VAL_EVERY == 0 else "train"


def _write(
    folder: Path, phase: str, vocab_size: int, documents: dict[str, list[str]], report: Callable[[str], object]
) -> None:
    """Train the tokenizer on the train documents and write all files of the phase into ``folder``."""
    report(f"training a tokenizer of {vocab_size} ids on {len(documents['train'])} files")
    tokenizer = folder / TOKENIZER_JSON
    write_durable(tokenizer, train_tokenizer(documents["train"], vocab_size, pattern=None).encode())
    vocabulary = load_vocabulary(tokenizer)
    if vocabulary.size < vocab_size:
        raise UserError(
            f"vocab_size: {vocab_size} is more than BPE finds in the sources ({vocabulary.size}): "
            f"use {vocabulary.size} or less, or more text"
        )
    encoder, counts, hashes = Encoder(vocabulary), {}, {TOKENIZER_JSON: vocabulary.sha256}
    for split, texts in documents.items():
        report(f"packing {len(texts)} files for {split}")
        batch = Batch([text.encode() for text in texts], [None] * len(texts), [Source(split, 0)] * len(texts))
        encoded = encode_batch(batch, encoder, vocabulary)
        shard = ShardWriter(folder / split, f"{phase}-{split}", vocabulary.dtype, len(encoded.ids), ShardState(), 0)
        shard.write(encoded.ids, encoded.tokens, int(encoded.bytes.sum()))
        shard.close()
        counts[split] = {key: getattr(shard.state, key) for key in ("documents", "tokens", "bytes")}
        hashes |= {f"{split}/{name}": sha256 for name, sha256 in shard.state.closed.items()}
        report(f"{split}: {shard.state.tokens} tokens")
    manifest = {
        "kind": KIND,
        "python": platform.python_version(),
        "tokenizer": {"file": TOKENIZER_JSON, "sha256": vocabulary.sha256},
        "vocab_size": vocab_size,
        "dtype": vocabulary.dtype.name,
        "eot_id": vocabulary.eot_id,
        "splits": counts,
        "sha256": hashes,
    }
    write_durable(folder / DATASET_JSON, json.dumps(manifest, indent=2).encode() + b"\n")
