"""Packs text into shards: lists the files, has them read and encoded, and merges the batches in order.

Everything happens in a hidden folder beside the target, which becomes visible when it is complete. A pack that was
killed goes on from its journal, and ends with the same bytes as one that was not.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from data.pack.batches import FileEnd, group_tasks, read_batches
from data.pack.documents import check_readable, has_rows_as_text
from data.pack.encode_batch import encode_batch
from data.pack.encoder import Encoder
from data.pack.journal import COUNTED, Progress, StateFolder, write_durable
from data.pack.manifest import library_versions, make_manifest
from data.pack.merge import Merger
from data.pack.near_duplicates import check_installed
from data.pack.pipeline import Pipeline
from data.pack.report import Report
from data.pack.request import REFERENCE, STDIN, Request
from data.pack.sources import Listing, check_sources, list_sources
from data.pack.split_rule import DIGEST_BYTES, SPLITS, default_fraction
from data.pack.standard_input import spool
from data.pack.target import DIGESTS, SOURCES, Existing, check_target, publish, recorded_val, sha256_of
from data.pack.tokenizer_choice import given_tokenizer, make_tokenizer
from data.pack.vocabulary import TOKENIZER_JSON, Vocabulary, load_vocabulary
from data.shards import DATASET_JSON
from profiles.errors import UserError
from profiles.printable import counted
from profiles.reader import read_json

_COMMIT_SECONDS = 0.5  # between commits, at least
_COMMIT_SHARE = 20  # one takes at most 1/20 of the time
_PROGRESS, _REQUEST, _LISTING, _BUILT = "progress.json", "request.json", "listing.jsonl", "built"
_BLOCK = 1 << 20
_FAULTS_NAMED = 20


@dataclass(frozen=True, slots=True)
class Packed:
    """What a pack did: ``progress`` counts what it added, ``manifest`` is the ``dataset.json`` of ``target``."""

    target: Path
    manifest: dict[str, Any]
    progress: Progress


def pack(request: Request, report: Report) -> Packed:
    """Pack the sources of ``request`` into shards, or go on with an unfinished pack of the same request.

    Raise ``UserError`` for what the user can put right; what is finished is kept in ``request.state``.
    """
    if request.near_duplicates is not None:
        check_installed()
    if not request.state.is_dir():  # refuse before anything is made
        check_target(request)
        check_sources(request.sources)
    try:
        state = StateFolder(request.state)
        try:
            return _Packing(request, state, report).run()
        finally:
            if not (state.path / _PROGRESS).exists():
                state.discard()
            state.close()
    except OSError as error:
        goes_on = "free some space or repair it; what is finished is kept, and the same command goes on from there"
        remedy = goes_on if (request.state / _PROGRESS).exists() else "check --out, its permissions and free space"
        raise UserError(f"{error.filename or request.out}: {error.strerror or error}: {remedy}") from error


class _Packing:
    """One pack, while it holds the lock of its state folder."""

    def __init__(self, request: Request, state: StateFolder, report: Report) -> None:
        self._request, self._state, self._report = request, state, report
        self._built = state.path / _BUILT
        self._separator = request.separator.encode() if request.separator else None
        self._faults_named = 0
        self._room_noted = False

    def run(self) -> Packed:
        content = self._state.read(_PROGRESS)
        path = self._state.path / _PROGRESS
        progress = Progress.from_dict(content, path) if content else Progress(given=_no_counts(self._request))
        if progress.complete and not self._built.exists() and self._state.read(_REQUEST) is None:
            path.unlink()  # that pack is done: it was killed in `clear`
            progress = Progress(given=_no_counts(self._request))
        if progress.complete:
            self._check_begun(self._request.identity())
        else:
            self._build(progress)
        if progress.documents:
            publish(self._built, self._request.target)
        self._state.clear(last=(_REQUEST, _PROGRESS))
        return Packed(self._request.target, read_json(self._request.target / DATASET_JSON), progress)

    def _build(self, progress: Progress) -> None:
        """Make the data set in the state folder, from where ``progress`` is. Raise ``UserError`` and ``OSError``."""
        existing = check_target(self._request)
        for path in filter(has_rows_as_text, self._request.sources):
            self._report.note(
                f"{path}: is an array of JSON, packed as the text it is; to pack the texts in it make rows of it first:"
                f" jq -c '.[]' {shlex.quote(path)} > rows.jsonl"
            )
        tokenizer = given_tokenizer(self._request)
        vocabulary = self._vocabulary(self._request.target, existing) if tokenizer is not None else None
        with ThreadPoolExecutor(1, "load") as thread:
            reference = self._request.encoder == REFERENCE
            # The files are listed meanwhile: fastokens loads outside Python's lock.
            loading = thread.submit(Encoder, vocabulary, reference) if vocabulary else None
            listing = self._list(progress, existing, tokenizer)
            if self._request.val is None:
                val = recorded_val(existing.manifest) if existing else None
                self._request = replace(self._request, val=default_fraction(listing.bytes) if val is None else val)
            self._begin(listing, existing, tokenizer)
            vocabulary = vocabulary or self._vocabulary(self._built, existing)
            encoder = loading.result() if loading else Encoder(vocabulary, reference)
        if encoder.name == REFERENCE != self._request.encoder:
            self._report.note("fastokens does not know this kind of tokenizer: tokenizers encodes, which is slower")
        merger = Merger(self._request, self._built, vocabulary, progress, existing)
        try:
            self._commit(merger)
            self._merge_all(merger, listing, encoder, vocabulary)
            merger.finish()
        finally:
            merger.close()
        there = progress.duplicates or progress.near_duplicates
        if not progress.documents and not (self._request.append and there):
            (self._state.path / _PROGRESS).unlink()
            raise UserError(_nothing(self._request, progress))
        names = (TOKENIZER_JSON, DIGESTS, SOURCES)
        hashes = {name: sha256_of(self._built / name) for name in names}
        before = existing.manifest if existing else {}
        manifest = make_manifest(self._request, vocabulary, progress, before, hashes)
        write_durable(self._built / DATASET_JSON, json.dumps(manifest, indent=2).encode() + b"\n")
        for split in SPLITS:
            if not progress.shards[split].closed:
                (self._built / split).rmdir()
        progress.complete = True
        self._state.write(_PROGRESS, progress.to_dict())

    def _list(self, progress: Progress, existing: Existing | None, tokenizer: bytes | None) -> Listing:
        """List the sources. Raise ``UserError`` if they or the arguments are not those of the unfinished pack."""
        kind = self._request.stdin_format
        spooled = self._state.path / f"stdin.{kind}"
        separator = self._separator if kind == "txt" else b"\n"
        stdin = spool(spooled, separator, progress.read, self._report) if STDIN in self._request.sources else ""
        found = self._state.path / _LISTING
        self._report.stage("listing the files")
        listing = list_sources(
            *(self._request.sources, self._request.out, spooled, found, check_readable),
            lambda files: self._report.stage(f"listing the files: {files}"),
        )
        asked = {
            **self._request.identity(),
            "tokenizer": hashlib.sha256(tokenizer).hexdigest() if tokenizer else None,
            "adds to": existing.manifest["sha256"] if existing else None,
            "standard input": stdin,
            "files": listing.digest,
            "versions": library_versions(self._request),
        }
        if (self._state.path / _REQUEST).exists() or (self._state.path / _PROGRESS).exists():
            self._check_begun(asked)
        else:
            self._state.write(_REQUEST, asked)
        return listing

    def _check_begun(self, asked: dict[str, Any]) -> None:
        """Raise ``UserError`` unless the pack that was begun has these arguments."""
        begun = self._state.read(_REQUEST)
        if begun is None:
            raise UserError(f"{self._state.path / _REQUEST}: is missing: remove its folder to begin again")
        changed = next((key for key in asked if key not in begun or begun[key] != asked[key]), None)
        if changed is not None:
            goes_on = "put them back to go on" if changed == "files" else "repeat its command to go on"
            raise UserError(
                f"{self._state.path}: an unfinished pack with other {changed} lies there: {goes_on},"
                " or remove the folder to begin again"
            )

    def _begin(self, listing: Listing, existing: Existing | None, tokenizer: bytes | None) -> None:
        """Put the tokenizer and the two lists of the data set to add to into ``_built``, where they are not there."""
        self._built.mkdir(exist_ok=True)
        path = self._built / TOKENIZER_JSON
        if path.exists():
            return
        for name in (DIGESTS, SOURCES) if existing else ():
            shutil.copyfile(self._request.target / name, self._built / name)
        if tokenizer is None:
            make_tokenizer(self._request, listing, path, self._report)
        else:
            write_durable(path, tokenizer)

    def _vocabulary(self, folder: Path, existing: Existing | None) -> Vocabulary:
        """Load the tokenizer: the one that is asked for, else that of ``folder``."""
        before = existing.manifest["eot"] if existing else None
        if before is not None and self._request.eot not in (None, before):
            raise UserError(f"--eot: {self._request.eot} does not end the documents that are there: leave --eot out")
        return load_vocabulary(self._request.tokenizer or folder / TOKENIZER_JSON, before or self._request.eot)

    def _merge_all(self, merger: Merger, listing: Listing, encoder: Encoder, vocabulary: Vocabulary) -> None:
        progress, before, due = merger.progress, merger.progress.read, 0.0
        read = partial(read_batches, key=self._request.text_key, separator=self._separator)
        near = self._request.near_duplicates
        encode = partial(encode_batch, encoder=encoder, vocabulary=vocabulary, near=near)
        with Pipeline(group_tasks(listing), progress.position, read, encode, self._request.workers) as pipeline:
            for position, batch in pipeline:
                merger.merge(position, batch)
                self._name_faults(batch.ended)
                self._report.progress(progress.read, listing.bytes, progress.tokens, before)
                if (began := time.monotonic()) >= due:
                    self._commit(merger)
                    self._note_room(progress, listing, vocabulary)
                    due = time.monotonic() + max(_COMMIT_SECONDS, _COMMIT_SHARE * (time.monotonic() - began))

    def _note_room(self, progress: Progress, listing: Listing, vocabulary: Vocabulary) -> None:
        """Say once that the disk is too small for the rest, if it takes as much as what is packed so far."""
        written = progress.tokens * vocabulary.dtype.itemsize + progress.documents * DIGEST_BYTES
        needed = written * (listing.bytes - progress.read) / max(progress.read, 1)
        free = shutil.disk_usage(self._built).free
        if needed > free and not self._room_noted:
            self._room_noted = True
            self._report.note(
                f"{self._request.out}: the rest will take about {needed / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are"
                " free: free some space, or stop and choose another --out; a pack that fills its disk keeps what is"
                " finished, and the same command goes on"
            )

    def _name_faults(self, ended: list[FileEnd]) -> None:
        for end in ended:
            if end.fault and self._faults_named <= _FAULTS_NAMED:
                more = "more files cannot be read; sources.jsonl names them all"
                last = self._faults_named == _FAULTS_NAMED
                before = f"the {counted(end.documents, 'document')} before that"
                packed = f"{before} {'is' if end.documents == 1 else 'are'} packed" if end.documents else "left out"
                self._report.note(more if last else f"{end.source.shown}: {end.fault}; {packed}")
                self._faults_named += 1

    def _commit(self, merger: Merger) -> None:
        merger.sync()
        self._state.write(_PROGRESS, merger.progress.to_dict())


def _no_counts(request: Request) -> list[dict[str, int]]:
    return [dict.fromkeys(COUNTED, 0) for _ in request.sources]


def _nothing(request: Request, progress: Progress) -> str:
    reasons = [*progress.skipped.lines(), *([counted(progress.faults, "unreadable file")] if progress.faults else [])]
    why = "; ".join(reasons) or "the files are empty"
    return f"{', '.join(request.sources)}: nothing could be packed: {why}"
