"""The built-in corpus: Python's own standard library, packed with a tokenizer trained on it.

Every machine that runs mla-tui has these sources, so the first run needs no download.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import os
import platform
import secrets
import shutil
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data.shards import DATASET_JSON, read_manifest, write_shard
from profiles.errors import UserError

KIND = "python-sources"
EOT = "<|endoftext|>"
TOKENIZER_JSON = "tokenizer.json"
_SPLITS = ("train", "val")
_SKIPPED = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
# One document in 16 validates: enough windows for a steady mean, little taken from training.
_VAL_SHARE = 16
# Byte-level BPE cannot have fewer: the 256 bytes and the end of text.
_SMALLEST_VOCAB = 257
_BATCH = 64


def build_corpus(
    root: Path,
    phase: str = "phase1",
    vocab_size: int = 4096,
    say: Callable[[str], object] = lambda words: None,
    source: Path | None = None,
) -> Path:
    """Packs the ``.py`` files under ``source`` (the standard library) into ``<root>/<phase>``; returns that directory.

    A whole file goes to train or to val by the hash of its relative path, and ends with the end-of-text id. What was
    built before with the same vocabulary is checked and kept. The directory appears whole or not at all: it is written
    beside its place and renamed. Nothing that stands there is ever replaced. ``say`` gets a few words of progress.
    Raises UserError where the source is too small, the place is taken, or the disk refuses.
    """
    if not _SMALLEST_VOCAB <= vocab_size <= 65536:
        raise UserError(f"vocab_size: {vocab_size} is not in {_SMALLEST_VOCAB}..65536")
    target = root / phase
    building = target.with_name(f".{target.name}-building-{secrets.token_hex(4)}")
    try:
        if _built(target, vocab_size):
            say(f"{target}: already built")
            return target
        documents = _documents(source or Path(sysconfig.get_path("stdlib")))
        building.mkdir(parents=True)
        _write(building, phase, vocab_size, documents, say)
        # Renaming onto a directory fails unless that one is empty, so this cannot take anything away.
        building.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST) and _built(target, vocab_size):
            say(f"{target}: built by another process meanwhile")
            return target
        raise UserError(
            f"{target}: cannot write the corpus ({error.strerror}): free some space or choose another directory"
        ) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return target


def _built(target: Path, vocab_size: int) -> bool:
    """Whether ``target`` holds this corpus, whole; False where nothing is there, UserError where something else is."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    elsewhere = "move it away, or choose another directory or phase"
    manifest = read_manifest(target) if target.is_dir() else None
    if manifest is None or manifest.raw.get("kind") != KIND:
        raise UserError(f"{target}: is taken by something that is not the built-in corpus: {elsewhere}")
    if manifest.vocab_size != vocab_size:
        raise UserError(
            f"{target}: was built with a vocabulary of {manifest.vocab_size}, not {vocab_size}: {elsewhere}"
        )
    checksums = manifest.raw.get("sha256")
    if not isinstance(checksums, dict) or not checksums:
        raise UserError(f"{manifest.path}: has no checksums: {elsewhere}, then build again")
    for name, checksum in checksums.items():
        path = target / name
        if not path.is_file() or _sha256(path.read_bytes()) != checksum:
            raise UserError(f"{path}: is missing or not as it was built: {elsewhere}, then build again")
    return True


def _documents(source: Path) -> dict[str, list[str]]:
    """The texts of each split in the order of their relative paths; UserError where a split would be empty."""
    documents: dict[str, list[str]] = {split: [] for split in _SPLITS}
    for name in sorted(_names(source)):
        try:
            text = (source / name).read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            continue  # A handful of old files are in other encodings; guessing at them would only add noise.
        if text:
            documents[split_of(name)].append(text)
    for split, texts in documents.items():
        if not texts:
            raise UserError(f"{source}: its .py files give no {split} document: choose a directory with more of them")
    return documents


def _names(source: Path) -> Iterator[str]:
    """Relative paths, with /, of the sources that are neither tests nor third-party packages."""
    for folder, subfolders, files in os.walk(source):
        subfolders[:] = [name for name in subfolders if name not in _SKIPPED]
        for name in files:
            if name.endswith(".py"):
                yield (Path(folder) / name).relative_to(source).as_posix()


def split_of(name: str) -> str:
    """The split of a document: a pure function of its relative path, so no rebuild ever moves a file across."""
    return "val" if hashlib.sha256(name.encode()).digest()[0] % _VAL_SHARE == 0 else "train"


def _write(
    folder: Path, phase: str, vocab_size: int, documents: dict[str, list[str]], say: Callable[[str], object]
) -> None:
    """Trains the tokenizer on the train documents and writes all files of the phase into ``folder``."""
    say(f"training a tokenizer of {vocab_size} ids on {len(documents['train'])} files")
    tokenizer = _train_tokenizer(documents["train"], vocab_size)
    text = tokenizer.to_str(pretty=True).encode()
    _write_bytes(folder / TOKENIZER_JSON, text)
    eot = tokenizer.token_to_id(EOT)
    counts = {}
    for split in _SPLITS:
        say(f"packing {len(documents[split])} files for {split}")
        ids = _encode(tokenizer, documents[split], eot)
        (folder / split).mkdir()
        write_shard(_shard_path(folder, phase, split), ids)
        counts[split] = {"documents": len(documents[split]), "tokens": len(ids)}
        say(f"{split}: {len(ids)} tokens")
    files = [folder / TOKENIZER_JSON, *(_shard_path(folder, phase, split) for split in _SPLITS)]
    manifest = {
        "kind": KIND,
        "python": platform.python_version(),
        "tokenizer": {"file": TOKENIZER_JSON, "sha256": _sha256(text)},
        "vocab_size": vocab_size,
        "dtype": "uint16",
        "eot_id": eot,
        "splits": counts,
        "sha256": {path.relative_to(folder).as_posix(): _sha256(path.read_bytes()) for path in files},
    }
    _write_bytes(folder / DATASET_JSON, json.dumps(manifest, indent=2).encode() + b"\n")


def _train_tokenizer(texts: list[str], vocab_size: int) -> Any:
    # Imported here: the rest of the floor must load without it.
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[EOT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    if tokenizer.get_vocab_size() < vocab_size:
        raise UserError(
            f"vocab_size: {vocab_size} is more than the sources yield ({tokenizer.get_vocab_size()}): "
            f"ask for {tokenizer.get_vocab_size()} or less, or give more text"
        )
    return tokenizer


def _encode(tokenizer: Any, texts: list[str], eot: int) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """All documents one after another, (tokens,) uint16, each with ``eot`` behind it."""
    parts = []
    # In batches, because an encoding holds far more than its ids.
    for start in range(0, len(texts), _BATCH):
        for encoding in tokenizer.encode_batch_fast(texts[start : start + _BATCH], add_special_tokens=False):
            parts.append(np.array([*encoding.ids, eot], np.uint16))
    return np.concatenate(parts)


def _shard_path(folder: Path, phase: str, split: str) -> Path:
    return folder / split / f"{phase}-{split}-000.bin"


def _write_bytes(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def main(arguments: list[str] | None = None) -> int:
    """``python -m data.corpus ROOT``: words to stderr, the directory to stdout."""
    parser = argparse.ArgumentParser(
        prog="python -m data.corpus",
        description="Pack Python's standard library into a small corpus for a first run.",
        epilog="example: python -m data.corpus data/shards",
    )
    parser.add_argument("root", type=Path, help="the directory of all phases, data.root of a run")
    parser.add_argument("--phase", default="phase1", help="the directory to make in ROOT (default: %(default)s)")
    parser.add_argument("--vocab", type=int, default=4096, help="ids in the tokenizer (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        path = build_corpus(options.root, options.phase, options.vocab, say=lambda words: print(words, file=sys.stderr))
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
