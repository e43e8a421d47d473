"""Verifies a phase: reads every shard once and checks it against its header, ``dataset.json`` and the vocabulary."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data.document_overlap import Cutter, Overlap
from data.id_check import may_be_outside
from data.shard_file import BareIds, Shard, read_shard
from data.shards import DATASET_JSON, Manifest, ShardSet, bare_ids, read_manifest, read_shards
from data.split_advice import missing_split
from data.split_files import find_files, folders_below
from data.text_bytes import count_problem, differs
from profiles.errors import UserError
from profiles.names import check_below
from profiles.printable import brief, brief_key, one_line
from profiles.reader import open_regular

TOKENIZER_JSON = "tokenizer.json"
_BLOCK_BYTES = 4 << 20

Progress = Callable[[int, int], object]  # bytes read, of how many


@dataclass
class Verified:
    """What was checked of a phase, and its ``problems``, a line each.

    ``checksums``: files whose SHA-256 was compared; ``vocabulary_from``: what says the ``vocab_size`` (0: nothing
    does). ``documents``: those of val that were looked for in train; ``left_out``: those that were not, because they
    are too many or too long.
    """

    folder: str
    problems: list[str] = field(default_factory=list)
    shards: int = 0
    tokens: int = 0
    bytes: int = 0
    seconds: float = 0.0
    checksums: int = 0
    vocab_size: int = 0
    vocabulary_from: str = ""
    eot_id: int | None = None
    documents: int = 0
    left_out: int = 0


def verify_phase(folder: Path, vocab_size: int, model: str, report: Progress) -> Verified:
    """Verify the phase in ``folder``; ``report`` is called after each block.

    ``vocab_size`` is that of ``model``, which a message names; 0 without one. What is wrong becomes a problem.
    """
    return _Verification(folder, vocab_size, model, report).run()


class _Verification:
    def __init__(self, folder: Path, vocab_size: int, model: str, report: Progress) -> None:
        self._folder, self._report = folder, report
        self._result = Verified(str(folder))
        self._bad: set[Path] = set()
        manifest = self._manifest()
        self._raw = manifest.raw if manifest else {}
        own = manifest.vocab_size if manifest else None
        if own and vocab_size and own > vocab_size:
            self._problem(
                f"{folder / DATASET_JSON}: its vocabulary has {own} ids, {model} only {vocab_size}: "
                f"use a model with a vocabulary of at least {own}, or other data"
            )
        self._result.vocab_size = own or vocab_size
        self._result.vocabulary_from = DATASET_JSON if own else model if vocab_size else ""
        self._bare = bare_ids(manifest, vocab_size)
        end = self._raw.get("eot_id")
        self._result.eot_id = end if type(end) is int and end >= 0 else None
        self._expected = self._checksums()
        self._sums: dict[Path, str] = {}
        self._overlap = Overlap()
        self._buffer = memoryview(bytearray(_BLOCK_BYTES))
        self._read = self._total = 0

    def run(self) -> Verified:
        started = time.monotonic()
        splits = {split: self._open(split, files) for split, files in self._files().items()}
        val = [shard for split, found in splits.items() if split != "train" for shard in found]
        shards = [*val, *splits["train"]]  # train is compared with what is known of val
        self._one_type = len({shard.dtype for shard in shards}) == 1
        read = {shard.path for shard in shards} | self._bad
        others = [path for path in self._expected if path not in read]
        self._total = sum(shard.bytes for shard in shards)
        ends: dict[Path, int] = {}
        with ThreadPoolExecutor(1, "sha256") as pool:
            for index, shard in enumerate(shards):
                if index == len(val):
                    self._overlap.freeze()
                take = self._overlap.add_val if index < len(val) else self._overlap.look_for
                ends[shard.path] = self._check(shard, index, take, pool)
        for path in others:
            self._check_other(path)
        for split, found in splits.items():
            self._compare_counts(split, found, ends)
        self._compare_shards(splits)
        self._say_overlap(shards)
        result = self._result
        result.problems = list(dict.fromkeys(result.problems))
        result.shards, result.tokens = len(shards), sum(shard.tokens for shard in shards)
        result.bytes, result.seconds = self._read, time.monotonic() - started
        result.documents = self._overlap.compared if self._overlap.looked_at else 0
        result.left_out += self._overlap.left_out
        return result

    def _problem(self, text: str, path: Path | None = None) -> None:
        self._result.problems.append(one_line(text))
        if path is not None:
            self._bad.add(path)

    def _manifest(self) -> Manifest | None:
        try:
            return read_manifest(self._folder)
        except UserError as error:
            self._problem(str(error))
            return None

    def _checksums(self) -> dict[Path, str]:
        """Return the SHA-256 of files that ``dataset.json`` lists. A file that is not there is a problem."""
        source, listed = self._folder / DATASET_JSON, self._raw.get("sha256", {})
        if not isinstance(listed, dict):
            self._problem(f"{source}: sha256: {brief(listed)} is not a table of files; repair it")
            listed = {}
        tokenizer = self._raw.get("tokenizer")
        if isinstance(tokenizer, dict) and tokenizer.get("sha256") is not None:
            listed = {**listed, TOKENIZER_JSON: tokenizer["sha256"]}
        found = {}
        for name, sha256 in listed.items():
            path = self._folder / name
            try:
                check_below("sha256", name)
                if not isinstance(sha256, str):
                    raise UserError(f"sha256: {brief_key(name)}: {brief(sha256)} is no checksum; repair it")
                if not path.exists():
                    self._problem(f"{path}: is missing; {DATASET_JSON} lists it: copy it there, or pack again", path)
                    continue
            except OSError as error:
                self._problem(f"{source}: sha256: {brief_key(name)}: {error.strerror}; repair it")
                continue
            except (UserError, ValueError) as error:
                self._problem(f"{source}: {error}")
                continue
            found[path] = sha256
        return found

    def _files(self) -> dict[str, list[Path]]:
        """Return the files of train, val and its buckets; no files for training are a problem."""
        buckets = [path.name for path in folders_below(self._folder / "val") if path.parent == self._folder / "val"]
        splits = {}
        for split in ("train", "val", *(f"val/{name}" for name in buckets)):
            splits[split] = find_files(self._folder, split)
        if not splits["train"] and not self._bad:
            self._problem(missing_split(self._folder.parent, self._folder.name, "train"))
        return splits

    def _open(self, split: str, files: list[Path]) -> tuple[Shard, ...]:
        bare = self._bare.among(len(files))
        try:
            return read_shards(files, bare)
        except UserError as error:
            shards = [shard for path in files if (shard := self._open_one(path, bare))]
            if len(shards) == len(files):
                self._problem(str(error))
                self._bad.update(files)
            return tuple(shards)

    def _open_one(self, path: Path, bare: BareIds) -> Shard | None:
        try:
            return read_shard(path, bare)
        except UserError as error:
            self._problem(str(error), path)
            return None

    def _check(self, shard: Shard, index: int, take: Callable[..., object], pool: ThreadPoolExecutor) -> int:
        """Read a shard once; check its ids and checksum, and give its documents to ``take``. Return those it ends."""
        wanted = self._expected.get(shard.path)
        sha256 = hashlib.sha256()
        end, limit = self._result.eot_id, self._result.vocab_size or 1 << 32
        cutter = Cutter(end) if end is not None else None
        checks_ids = may_be_outside(shard.dtype, limit)
        token, outside = 0, ""
        try:
            with open_regular(shard.path) as file:
                sha256.update(file.read(shard.header))
                while token < shard.tokens:
                    block = self._buffer[: min(_BLOCK_BYTES, (shard.tokens - token) * shard.dtype.itemsize)]
                    if file.readinto(block) != len(block):
                        self._problem(f"{shard.path}: ends before token {shard.tokens}: it is changing", shard.path)
                        return 0
                    hashing = pool.submit(sha256.update, block) if wanted else None
                    ids = np.frombuffer(block, shard.dtype)
                    if checks_ids and not outside:
                        outside = self._outside(ids, token, limit)
                    token += len(ids)
                    if cutter:
                        take(index, cutter.cut(ids if self._one_type else ids.astype(np.int64), token == shard.tokens))
                    if hashing:
                        hashing.result()
                    self._read += len(block)
                    self._report(self._read, self._total)
        except OSError as error:
            self._problem(f"{shard.path}: cannot be read ({error.strerror}): check its disk", shard.path)
            return 0
        differs = False
        if wanted:
            self._sums[shard.path] = sha256.hexdigest()
            self._result.checksums += 1
            differs = self._sums[shard.path] != wanted
        if outside or differs:
            texts = [outside, f"its SHA-256 is not that in {DATASET_JSON}" if differs else ""]
            remedy = "copy or pack it again" if differs else "pack it again with that tokenizer, or correct the dtype"
            self._problem(f"{shard.path}: {', and '.join(filter(None, texts))}: {remedy}", shard.path)
        if cutter is None:
            return 0
        self._result.left_out += cutter.too_long
        return cutter.ends

    def _outside(self, ids: Any, token: int, limit: int) -> str:
        """Return what is wrong with the first id outside the vocabulary, or nothing."""
        if ids.min() >= 0 and ids.max() < limit:
            return ""
        place = int(np.argmax((ids < 0) | (ids >= limit)))
        says = self._result.vocabulary_from
        why = f"outside the vocabulary of {limit} of {says}" if says and ids[place] >= 0 else "which is no token id"
        return f"token {token + place} is id {int(ids[place])}, {why}"

    def _check_other(self, path: Path) -> None:
        try:
            with open_regular(path) as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            self._problem(f"{path}: cannot be read ({error.strerror}): check its permissions", path)
            return
        self._result.checksums += 1
        if found != self._expected[path]:
            remedy = "put back the one that packed the data" if path.name == TOKENIZER_JSON else "copy or pack it again"
            self._problem(f"{path}: its SHA-256 is not that in {DATASET_JSON}: {remedy}", path)

    def _compare_counts(self, split: str, shards: tuple[Shard, ...], ends: dict[Path, int]) -> None:
        """Compare tokens and documents with ``dataset.json``, unless a file is bad, which is said already."""
        splits = self._raw.get("splits")
        recorded = splits.get(split) if isinstance(splits, dict) else None
        beside = {self._folder / split, *(shard.path.parent for shard in shards)}
        if not isinstance(recorded, dict) or any(path.parent in beside for path in self._bad):
            return
        counts: dict[str, int | None] = {"tokens": sum(shard.tokens for shard in shards), "documents": None}
        indexed = [shard.documents for shard in shards]
        if indexed and None not in indexed:
            counts["documents"] = sum(count or 0 for count in indexed)
        elif self._result.eot_id is not None:
            counts["documents"] = sum(ends[shard.path] for shard in shards)
        if shards and self._one_type and (why := count_problem(self._folder, split, ShardSet(shards))):
            self._problem(why)
        for key, count in counts.items():
            if why := differs(self._folder, split, key, recorded, count):
                self._problem(why)

    def _compare_shards(self, splits: dict[str, tuple[Shard, ...]]) -> None:
        train: dict[tuple[int, int], list[Shard]] = {}
        for shard in splits["train"]:
            train.setdefault((shard.tokens, shard.beginning), []).append(shard)
        for split, shards in splits.items():
            for shard in shards if split != "train" else ():
                for other in train.get((shard.tokens, shard.beginning), ()):
                    if self._sum(shard) == self._sum(other):
                        self._problem(
                            f"{shard.path}: is the same as {other.path}, which is trained on: "
                            f"take it out of {split} or out of train"
                        )

    def _sum(self, shard: Shard) -> str:
        if shard.path not in self._sums:
            with open_regular(shard.path) as file:
                self._sums[shard.path] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._sums[shard.path]

    def _say_overlap(self, shards: list[Shard]) -> None:
        if self._overlap.first is None:
            return
        val, val_token, train, train_token = self._overlap.first
        what = f"{self._overlap.found} of {self._overlap.compared} documents of val are"
        self._problem(
            f"{shards[val].path}: {what if self._overlap.found > 1 else what[:-3] + 'is'} also in train, that at token "
            f"{val_token} in {shards[train].path} at token {train_token}: pack both with one data pack, which drops "
            "equal documents"
        )
