"""Prepares a ``tokenizer.json`` for packing: finds its end-of-text token, vocabulary size and pattern."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data.dtypes import UINT16, UINT32
from data.pack.cuts import can_cut
from data.tokenizer import MAX_BYTES, for_documents, id_count, load_tokenizer
from profiles.errors import UserError
from profiles.printable import brief
from profiles.reader import parse_json, read_bytes

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER_JSON = "tokenizer.json"
MAX_IDS = 1 << 24
# In this order: a chat model has two of them, and its documents ended with the first.
END_TOKENS = ("<|endoftext|>", "<EOT>", "</s>", "<|im_end|>", "<|end_of_text|>")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A tokenizer as a pack uses it.

    ``content`` is its file, ``encoding`` the JSON to encode with, and ``reference`` what tokenizers made of that.
    ``cuts``: a long text may be cut for it (``data/pack/cuts.py``).
    """

    content: bytes
    encoding: str
    reference: Tokenizer
    cuts: bool
    eot: str
    eot_id: int
    size: int
    pattern: str | None

    @property
    def dtype(self) -> np.dtype[Any]:
        return UINT16 if self.size <= 1 << 16 else UINT32

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


def load_vocabulary(path: Path, eot: str | None = None) -> Vocabulary:
    """Read a ``tokenizer.json``. Raise ``UserError`` if it is damaged or has no known end-of-text token."""
    tokenizer = load_tokenizer(path)
    content = read_bytes(path, MAX_BYTES)
    settings = parse_json(content.decode("utf-8-sig"), str(path))
    size = id_count(tokenizer)
    # tokenizers gives an added token another id than its file says if there is a gap.
    highest = max(size - 1, 0, *(added["id"] for added in settings.get("added_tokens") or ()))
    if highest >= MAX_IDS:  # the libraries hold a table of all ids up to it
        raise UserError(f"{path}: has the id {highest}; ids above {MAX_IDS - 1} are not supported: renumber its tokens")
    token, number = _end_token(path, tokenizer, eot)
    encoding = str(content, "utf-8")
    if (wanted := for_documents(settings, number)) != settings:
        encoding = json.dumps(wanted, ensure_ascii=False)
        tokenizer = type(tokenizer).from_str(encoding)
    tokenizer.encode_special_tokens = True
    pattern = _pattern(settings.get("pre_tokenizer"))
    return Vocabulary(content, encoding, tokenizer, can_cut(settings), token, number, size, pattern)


def _end_token(path: Path, tokenizer: Tokenizer, eot: str | None) -> tuple[str, int]:
    for token in (eot,) if eot is not None else END_TOKENS:
        number = tokenizer.token_to_id(token)
        if number is not None:
            return token, number
    if eot is not None:
        raise UserError(f"--eot: {path} has no token {brief(eot)}; name the one that ends its documents")
    raise UserError(
        f"{path}: has none of {', '.join(END_TOKENS)}; name the token that ends a document with --eot TOKEN"
    )


def _pattern(pre_tokenizer: Any) -> str | None:
    """Return the regular expression that splits text into words, or None where it names none."""
    if not isinstance(pre_tokenizer, dict):
        return None
    for part in (pre_tokenizer, *(pre_tokenizer.get("pretokenizers") or ())):
        if part.get("type") == "Split" and isinstance(part.get("pattern"), dict):
            pattern = part["pattern"].get("Regex")
            return pattern if isinstance(pattern, str) else None
    return None
