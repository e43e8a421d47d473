"""Chooses the tokenizer of a pack: the one that is asked for, the one that is there, or one trained on the text."""

from __future__ import annotations

import json
from pathlib import Path

from data.pack.journal import write_durable
from data.pack.report import Report
from data.pack.request import Request
from data.pack.sources import Listing
from data.pack.training import DEFAULT_SIZE, WhyNone, cut_long_words, default_size, sample, train_tokenizer
from data.pack.vocabulary import TOKENIZER_JSON
from data.tokenizer import MAX_BYTES
from profiles.errors import UserError
from profiles.reader import read_bytes


def given_tokenizer(request: Request) -> bytes | None:
    """Return the ``tokenizer.json`` that the request or the target names, or None to train one. Raise ``UserError``."""
    there = request.target / TOKENIZER_JSON
    asked = _read(request.tokenizer) if request.tokenizer else None
    if request.append:
        held = _read(there)
        if request.train_tokenizer is not None or asked not in (None, held):
            raise UserError(f"--append: documents are added with {there}: leave the other tokenizer out")
        return held
    if asked is None and request.train_tokenizer is None and there.is_file():
        return _read(there)
    return asked


def make_tokenizer(request: Request, listing: Listing, path: Path, report: Report) -> None:
    """Train a tokenizer and write it to ``path``. Raise ``UserError`` if there is no text, or ``OSError``."""
    report.stage("reading a sample of the text")
    separator = request.separator.encode() if request.separator else None
    texts = sample(listing, request.text_key, separator, request.fraction, why := WhyNone())
    if not texts:
        raise UserError(f"{why}no text to train a tokenizer on: name files with text, or a tokenizer with --tokenizer")
    size = request.train_tokenizer or default_size(texts)
    text = f"{sum(map(len, texts)):,} characters of text"
    fewer = f", fewer than {DEFAULT_SIZE} because there is little text" if size < DEFAULT_SIZE else ""
    chosen = "" if request.train_tokenizer else fewer
    report.note(f"training a tokenizer of {size} ids on {text}{chosen}")
    content = train_tokenizer(cut_long_words(texts), size)
    found = len(json.loads(content)["model"]["vocab"])
    if found < size:
        report.note(f"the text has pairs for {found} ids only; the tokenizer has that many")
    write_durable(path, content.encode())


def _read(path: Path) -> bytes:
    try:
        return read_bytes(path, MAX_BYTES)
    except FileNotFoundError:
        raise UserError(f"{path}: does not exist: name a tokenizer.json, or train one with --train-tokenizer") from None
