"""Loads a ``tokenizer.json``, and says whether two give texts the same ids."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiles.errors import UserError
from profiles.printable import brief
from profiles.reader import read_bytes, read_json, read_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MAX_BYTES = 128 << 20  # the largest in use has 33 MB
_REMEDY = "replace it with the one that packed the data"


def load_tokenizer(path: Path) -> Tokenizer:
    """Return the tokenizer in a file. Raise ``UserError`` if it is missing, damaged or no tokenizer."""
    from tokenizers import Tokenizer  # here: the rest of this package must work without it

    try:
        content = read_text(path, MAX_BYTES, _REMEDY)
    except FileNotFoundError:
        raise UserError(f"{path.parent}: has no tokenizer.json; copy the one that packed the data there") from None
    with its_errors(f"{path}: is not a valid tokenizer", _REMEDY):
        return Tokenizer.from_str(content)


@contextlib.contextmanager
def its_errors(what: str, remedy: str) -> Iterator[None]:
    """Raise a ``UserError`` that begins with ``what`` for an error of tokenizers.

    It raises Exception, also from encoding: for example where the token for unknown text has no id. Where its Rust code
    panics, it raises a BaseException.
    """
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise UserError(f"{what}: {brief(str(error))}; {remedy}") from None


def for_documents(settings: dict[str, Any], end: int | None) -> dict[str, Any]:
    """Return the ``settings`` of a tokenizer with which a document is encoded whole, and ``end`` is not in it.

    Truncation would cut documents without a word. The end-of-text token must be marked special, or its text within a
    document would become its id; with ``encode_special_tokens`` the text of a special token is text.
    """
    changed: dict[str, Any] = {key: None for key in ("truncation", "padding") if key in settings}
    if added := settings.get("added_tokens"):
        changed["added_tokens"] = [{**one, "special": one["special"] or one["id"] == end} for one in added]
    return settings | changed


def id_count(tokenizer: Tokenizer) -> int:
    """Return the size of the vocabulary that a model needs for it: the highest id plus one. Ids may have gaps."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1


def same_ids(model: Path, data: Path) -> bool:
    """Return whether each id of the tokenizer ``data`` is the same token in ``model``; True where one file is missing.

    Raise ``UserError`` where a file cannot be read.
    """
    if not (model.is_file() and data.is_file()):
        return True
    known = _tokens(model)
    return all(known.get(id) == token for id, token in _tokens(data).items())


def _tokens(file: Path) -> dict[object, object]:
    """Return the tokens by id. Tokens added to one of two tokenizers, and how a program saves it, change no other."""
    content = read_json(file, MAX_BYTES)
    try:
        vocabulary = content["model"]["vocab"]
        pairs = vocabulary.items() if isinstance(vocabulary, dict) else ((v[0], id) for id, v in enumerate(vocabulary))
        added = {token["id"]: token["content"] for token in content.get("added_tokens") or ()}
        return {id: token for token, id in pairs} | added
    except (KeyError, TypeError, IndexError, AttributeError):
        return {"damaged": read_bytes(file, MAX_BYTES)}
