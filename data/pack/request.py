"""Says what a pack is asked for, and in which folders it works."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHARD_TOKENS = 100_000_000
TEXT_KEY = "text"
STDIN = "-"
FAST, REFERENCE = ENCODERS = ("fastokens", "tokenizers")


@dataclass(frozen=True, slots=True)
class Request:
    """The arguments of a pack.

    ``sources`` are files, folders, globs or ``-`` as the user wrote them. ``tokenizer`` is a ``tokenizer.json``;
    without it one is trained, of ``train_tokenizer`` ids, or of a number that fits the text where that is None.
    ``val`` is the fraction of documents for validation; None: as in the data that is added to, else by the size of
    the text. ``separator`` cuts text files into documents. ``near_duplicates`` is how alike two documents are of which
    the second is left out; None: only equal ones are. ``eot`` is the end-of-text token where the tokenizer has none of
    the usual ones. ``workers`` is the number of threads; the result does not depend on it.
    """

    sources: tuple[str, ...]
    out: Path
    phase: str
    tokenizer: Path | None = None
    train_tokenizer: int | None = None
    val: float | None = None
    shard_tokens: int = SHARD_TOKENS
    text_key: str = TEXT_KEY
    separator: str | None = None
    eot: str | None = None
    stdin_format: str = "txt"
    encoder: str = FAST
    append: bool = False
    near_duplicates: float | None = None
    workers: int = 1

    @property
    def fraction(self) -> float:
        """The fraction of documents for validation, once the files are listed."""
        assert self.val is not None
        return self.val

    @property
    def target(self) -> Path:
        """The folder of the phase, which a run reads."""
        return self.out / self.phase

    @property
    def state(self) -> Path:
        return state_folder(self.out, self.phase)

    def identity(self) -> dict[str, Any]:
        """Return the arguments that the result depends on, as JSON values, by their names on the command line."""
        return {
            "sources": list(self.sources),
            "--train-tokenizer": self.train_tokenizer,
            "--val": self.val,
            "--shard-tokens": self.shard_tokens,
            "--text-key": self.text_key,
            "--separator": self.separator,
            "--eot": self.eot,
            "--stdin": self.stdin_format,
            "--encoder": self.encoder,
            "--append": self.append,
            "--near-duplicates": self.near_duplicates,
        }


def state_folder(out: Path, phase: str) -> Path:
    """Return the hidden folder of an unfinished pack, beside its target. The process that packs holds its lock."""
    return out / f".{phase}-packing"
