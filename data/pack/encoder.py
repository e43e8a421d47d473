"""Turns texts into ids: fastokens encodes, and tokenizers, the reference, checks it on a sample.

Tokenizers that fastokens does not know are encoded by tokenizers, at a fortieth of the speed. A special token in a text
is text, for both.
"""

from __future__ import annotations

from threading import BoundedSemaphore, Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from data.pack.freed_memory import return_memory
from data.pack.request import FAST, REFERENCE
from data.pack.vocabulary import Vocabulary
from data.tokenizer import its_errors
from profiles.errors import UserError
from profiles.printable import brief

Ids = npt.NDArray[Any]
Counts = npt.NDArray[np.int64]
_CANNOT, _REMEDY = "tokenizer.json: cannot encode this text", "use one that has an id for every byte"


class Encoder:
    """Encodes with one tokenizer; for several threads. ``name`` is the library that does it.

    It should get about ``at_once`` bytes of text, in parts of about ``part`` where ``cuts`` says that a text may be cut
    (``data/pack/cuts.py``), and none of more than ``most``. A text without spaces takes up to 60 times its memory, so
    of longer ones than two parts only one is encoded at a time.
    """

    def __init__(self, vocabulary: Vocabulary, reference_only: bool = False) -> None:
        self._reference = vocabulary.reference
        self._fast = None if reference_only else _fast(vocabulary.encoding)
        self.name = FAST if self._fast else REFERENCE
        self.cuts = vocabulary.cuts
        self.at_once, self.most = (4 << 20, 8 << 20) if self._fast else (512 << 10, 4 << 20)
        self.part = 512 << 10 if self._fast else 256 << 10
        self._large = Lock()
        self._few = BoundedSemaphore(2)  # tokenizers takes 140 times the memory of a text, and has threads of its own

    def encode(self, texts: list[str]) -> tuple[Ids, Counts]:
        """Return the ids of all texts, one after another, (tokens,) uint32, and how many each has, (texts,).

        Raise ``UserError`` where the tokenizer has no id for a part of them.
        """
        encode = self._encode_fast if self._fast else self._encode_reference
        if max(map(len, texts), default=0) <= 2 * self.part:
            return encode(texts)
        with self._large:
            return_memory()
            try:
                return encode(texts)
            finally:
                return_memory()

    def check(self, text: str, place: str) -> None:
        """Raise ``UserError`` that begins with ``place`` if both libraries do not give ``text`` the same ids."""
        if self._fast is None:
            return
        fast, reference = self._encode_fast([text])[0], self._encode_reference([text])[0]
        if not np.array_equal(fast, reference):
            same = min(len(fast), len(reference))
            at = next((i for i in range(same) if fast[i] != reference[i]), same)
            around = self._reference.decode(reference[max(0, at - 2) : at + 3].tolist(), skip_special_tokens=False)
            raise UserError(
                f"{place}: {FAST} and {REFERENCE} give different ids at token {at} of a sample, near {brief(around)}:"
                f" pack with --encoder {REFERENCE}, which is slower"
            )

    def _encode_fast(self, texts: list[str]) -> tuple[Ids, Counts]:
        assert self._fast is not None
        try:
            ids, offsets = self._fast.encode_batch_flat(texts, split_special_tokens=True)
        except ValueError as error:  # for example a byte that is not in the vocabulary
            raise UserError(f"{_CANNOT}: {brief(str(error))}; {_REMEDY}") from None
        return np.frombuffer(ids, "<u4"), np.diff(np.frombuffer(offsets, "<i8"))

    def _encode_reference(self, texts: list[str]) -> tuple[Ids, Counts]:
        with self._few:
            with its_errors(_CANNOT, _REMEDY):
                encodings = self._reference.encode_batch_fast(texts, add_special_tokens=False)
            parts = [np.array(encoding.ids, "<u4") for encoding in encodings]
            del encodings
        return np.concatenate(parts) if parts else np.empty(0, "<u4"), np.array([len(part) for part in parts], np.int64)


def _fast(settings: str) -> Any:
    """Return the tokenizer of fastokens, or None if it does not know this kind."""
    import fastokens

    try:
        return fastokens.Tokenizer.from_json_str(settings)
    except BaseException as error:  # ValueError; where its Rust code panics, a BaseException
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        return None
