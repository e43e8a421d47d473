"""Recognizes files that are not shards: what other programs write, and finds the type of ids that do not say it.

A token file without a header says nothing about itself. Read as 16-bit ids, a file of 32-bit ids trains without an
error, and its loss looks better, because every second id is 0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data.dtypes import INT32, INT64, UINT16, UINT32
from data.index_files import MEGATRON_MAGIC
from profiles.errors import UserError

NUMPY_MAGIC = b"\x93NUMPY"
_SIGNATURES = (
    (MEGATRON_MAGIC, "the index of a Megatron-LM data set"),
    (b"PK\x03\x04", "a zip archive, such as a PyTorch checkpoint or .npz"),
    (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", "a PyTorch checkpoint"),
    (b"GGUF", "a model in GGUF"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1\0\0", "an Arrow file"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
    (b"\xfd7zXZ\0", "compressed with xz"),
    (b"BZh91AY&SY", "compressed with bzip2"),
)
# llm.c begins all its files with a date, and a small version.
_LLM_C = {
    20240326: "a model of llm.c",
    20240328: "a tokenizer of llm.c",
    20240522: "an evaluation set of llm.c",
    20240527: "a training state of llm.c",
}
_LLM_C_SHARDS = (20240520, 20240801)
# Not worth a guess: fewer ids, or less text, may look like anything.
_MIN_IDS, _MIN_TEXT = 64, 16
# The high halves of ids wider than they are read as: ids up to 262143, and the negative ones that pad some files.
_HIGHEST_HIGH_HALF = 3
_ABOVE_ANY_VOCABULARY, _NEGATIVE = 1 << 22, 0xFFFF_0000


def check_kind(path: Path, head: bytes, size: int) -> None:
    """Raise ``UserError`` if a file that begins with ``head`` is evidently no array of token ids."""
    if kind := _kind(head, size):
        raise UserError(f"{path}: is {kind}, not a token file: {_remedy(head)}")


def check_byte_order(path: Path, head: bytes, vocab_size: int) -> None:
    """Raise ``UserError`` if the ids in ``head`` are evidently big-endian.

    They are if some are outside the vocabulary, and with their bytes swapped none is (16-bit ids), or the first of two
    words is always small (32-bit ids).
    """
    words, pairs = _words(head, UINT16), _words(head, UINT32)
    read = words if vocab_size < 1 << 16 else pairs
    if len(pairs) < _MIN_IDS or np.count_nonzero(read >= vocab_size) * 100 < len(read):
        return
    swapped = words.byteswap()
    halves_swapped = swapped[: 2 * len(pairs)].reshape(-1, 2)[:, ::-1].reshape(-1)
    wide = _is_twice_as_wide(halves_swapped) and not _is_twice_as_wide(words)
    if wide or int(swapped.max()) < vocab_size < 1 << 16:
        raise big_endian(path)


def big_endian(path: Path) -> UserError:
    """Return the error for ids whose first byte is the highest."""
    return UserError(f"{path}: its ids are big-endian: write them little-endian, with numpy's .byteswap()")


def evident_dtype(head: bytes, vocab_size: int) -> np.dtype[Any] | None:
    """Return the dtype that the ids in ``head`` evidently have, or None if there is too little evidence.

    Evidence for wider ids is that every second word is a high half (0 to 3, or all ones), although a quarter of the
    others are higher than these ever are: in ids of the width of a word, both come from the same text. Evidence for
    16-bit ids is that many pairs, read as one id, are above the vocabulary (0: above any).
    """
    words = _words(head, UINT16)
    if _is_twice_as_wide(words):
        if _is_twice_as_wide(_words(head, UINT32)):
            return INT64
        return INT32 if (words[1::2] == np.iinfo(words.dtype).max).any() else UINT32
    pairs = _words(head, UINT32)
    above = (pairs >= (max(vocab_size, 1 << 16) if vocab_size else _ABOVE_ANY_VOCABULARY)) & (pairs < _NEGATIVE)
    return UINT16 if len(pairs) >= _MIN_IDS and np.count_nonzero(above) * 8 > len(pairs) else None


def _is_twice_as_wide(words: npt.NDArray[Any]) -> bool:
    low, high = words[0::2], words[1::2]
    negative = high == np.iinfo(words.dtype).max
    if len(high) < _MIN_IDS or not ((high <= _HIGHEST_HIGH_HALF) | negative).all():
        return False
    highest = high[~negative].max(initial=0)
    return bool(np.count_nonzero(low[: len(high)] > highest) * 4 >= len(high))


def _words(head: bytes, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    return np.frombuffer(head, dtype, count=len(head) // dtype.itemsize)


def _kind(head: bytes, size: int) -> str | None:
    """Return what kind of file begins with ``head``, or None if that may be token ids."""
    for signature, kind in _SIGNATURES:
        if head.startswith(signature):
            return kind
    date, version = int.from_bytes(head[:4], "little"), int.from_bytes(head[4:8], "little")
    if int.from_bytes(head[:4], "big") in _LLM_C_SHARDS:
        return "a big-endian shard of llm.c"
    if date in _LLM_C and version < 1 << 8:
        return _LLM_C[date]
    # The signatures of gzip, pickle and safetensors are so short that the fields after them must make sense too.
    if head.startswith(b"\x1f\x8b\x08") and len(head) >= 10 and head[3] < 0x20 and head[8] in (0, 2, 4):
        return "compressed with gzip"
    if head[:3] in (b"\x80\x04\x95", b"\x80\x05\x95") and 0 < int.from_bytes(head[3:11], "little") <= size - 11:
        return "a Python pickle"
    if head[8:10] in (b'{"', b"{ ") and 2 <= int.from_bytes(head[:8], "little") <= size - 8:
        return "a model in safetensors"
    if head[257:262] == b"ustar":
        return "a tar archive"
    return _text_kind(head)


def _text_kind(head: bytes) -> str | None:
    """Return the kind of a text, or None if ``head`` is none. Small ids have a zero byte each, which text never has."""
    if len(head) < _MIN_TEXT or any(byte < 0x20 and byte not in b"\t\n\r" for byte in head[:256]):
        return None
    for cut in range(4):  # the last character may be cut
        try:
            text = head[: len(head) - cut].decode("utf-8")
            break
        except UnicodeDecodeError:
            continue
    else:
        return None
    if any(char < " " and char not in "\t\n\r" for char in text):
        return None
    start = text.lstrip("\ufeff \t\r\n")[:200].lower()
    if start.startswith("version https://git-lfs"):
        return "a Git LFS pointer"
    if start.startswith(("<!doctype html", "<html", "<?xml")):
        return "a web page (HTML)"
    return "JSON" if start.startswith(("{", "[")) else "text"


def _remedy(head: bytes) -> str:
    if head.startswith(b"version https://git-lfs"):
        return "fetch the file itself with git lfs pull"
    if head.lstrip()[:1] == b"<":
        return "download it again; the server sent this page instead"
    return "remove it, or pack it into token ids"
