"""Trains a byte-level BPE tokenizer on a sample of the text.

The sample is spread over all files. It is capped in size and in different words, so that neither time nor memory grow
with the text or with how strange it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from data.pack.documents import NOT_UTF8, Skipped, read_documents
from data.pack.raw_file import COMPRESSED, FileFault, RawFile, suffix_of
from data.pack.sources import Listing, Source
from data.pack.split_rule import as_digests, digest_of, for_validation
from data.pack.tally import Tally
from data.pack.vocabulary import END_TOKENS
from profiles.errors import UserError

EOT = END_TOKENS[0]
DEFAULT_SIZE = 32768
MIN_SIZE, MAX_SIZE = 257, 1 << 20  # the 256 bytes and the end of text
SAMPLE_BYTES = 40 << 20
_DIFFERENT_BYTES = 8 << 20  # of different words: BPE needs about 100 times their memory
_BYTES_PER_ID = 500  # of text; with less, the last ids would stand for words that occur a few times
_MIN_DEFAULT = 512
_PIECE = 64 << 10  # bytes of a document
_LONG_WORD = re.compile(r"(\S{32})")  # BPE's time grows with the square of a word
_COMPRESSION = 4  # a guess, for the share of a file
# That of Qwen2, which transformers, llama.cpp and fastokens know.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(slots=True)
class WhyNone:
    """Why there may be no text to train on: the first file that cannot be read, and what was skipped."""

    fault: str = ""
    skipped: Tally = field(default_factory=Tally)

    def note(self, source: Source, fault: str) -> None:
        self.fault = self.fault or f"{source.shown}: {fault}"

    def __str__(self) -> str:
        return "".join(f"{reason}; " for reason in (self.fault, *self.skipped.lines()) if reason)


def sample(listing: Listing, key: str, separator: bytes | None, val: float, why: WhyNone) -> list[str]:
    """Return texts of about ``SAMPLE_BYTES`` at most, of each file as much as its share of all bytes.

    Of files with many documents it takes the first. Documents for validation are left out. What cannot be read is
    passed over: packing will name it. Where there is no text, ``why`` is filled.
    """
    total = sum(map(_weight, listing))
    share = min(1.0, SAMPLE_BYTES / max(total, 1))
    while (texts := _sample(listing, key, separator, val, share, why)) is None:
        share /= 2
    return texts


def cut_long_words(texts: list[str]) -> Iterator[str]:
    """Yield ``texts`` with a space in words of more than 32 letters."""
    return (_LONG_WORD.sub(r"\1 ", text) for text in texts)


def default_size(texts: list[str]) -> int:
    """Return how many ids a tokenizer trained on ``texts`` gets: 32768, or less where there is little text."""
    fitting = sum(map(len, texts)) // _BYTES_PER_ID // 128 * 128
    return min(DEFAULT_SIZE, max(_MIN_DEFAULT, fitting))


def train_tokenizer(texts: Iterable[str], size: int, pattern: str | None = PATTERN) -> str:
    """Return the JSON of a tokenizer of ``size`` ids, fewer where the texts have no more repeated pairs.

    ``pattern`` splits text into words; None: that of GPT-2, which is built into byte-level BPE.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    words: Any = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    if pattern is not None:
        words = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated", False), words])
    tokenizer.pre_tokenizer = words
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[EOT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    return str(tokenizer.to_str(pretty=True))


def check_size(size: int) -> None:
    """Raise ``UserError`` if a tokenizer cannot have ``size`` ids."""
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise UserError(f"--train-tokenizer: {size} is not in {MIN_SIZE}..{MAX_SIZE}")


def _weight(source: Source) -> int:
    return source.size * (_COMPRESSION if suffix_of(source.path) in COMPRESSED else 1)


def _sample(
    listing: Listing, key: str, separator: bytes | None, val: float, share: float, why: WhyNone
) -> list[str] | None:
    """Return about ``share`` of the text, or None if it has too many different words."""
    texts: list[str] = []
    words: set[str] = set()
    due = different = 0.0
    for source in listing:
        due += share * _weight(source)
        if source.fault:
            why.note(source, source.fault)
            continue
        if due < min(source.size, _PIECE):
            continue  # of many small files some, evenly
        for document in _documents(source, key, separator, val, why):
            before = len(texts)
            for text in filter(None, _pieces(document, due, share)):
                texts.append(text)
                due -= len(text)
                for word in text.split():
                    if word not in words:
                        words.add(word)
                        different += len(word)
                if different > _DIFFERENT_BYTES:
                    return None
            if len(texts) == before:
                why.skipped.add(NOT_UTF8, source.shown)
            if due <= 0 and share < 1:
                break
    return texts


def _documents(source: Source, key: str, separator: bytes | None, val: float, why: WhyNone) -> Iterator[bytes]:
    try:
        with RawFile(source) as raw:
            for item in read_documents(source, raw, key, separator):
                if isinstance(item, Skipped):
                    why.skipped.add(item, source.shown)
                elif for_validation(as_digests(digest_of(item)), val)[0]:
                    why.skipped.add("for validation, by --val", source.shown)
                else:
                    yield item
    except FileFault as error:
        why.note(source, str(error))
    except OSError as error:
        why.note(source, error.strerror or str(error))


def _pieces(document: bytes, due: float, share: float) -> Iterator[str]:
    """Yield a document, or where it is larger than what is due evenly spaced pieces of it."""
    wanted = len(document) if share == 1 else min(len(document), int(due))
    count = max(1, wanted // _PIECE)
    for number in range(count):
        start = number * len(document) // count
        yield document[start : start + -(-wanted // count)].decode("utf-8", "ignore")
