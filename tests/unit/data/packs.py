"""Packs of small texts, in this process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from data.pack.packing import Packed, pack
from data.pack.request import Request
from data.shards import open_shards

EOT = "<|endoftext|>"


class Notes:
    """What a pack said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def stage(self, text: str) -> None:
        pass

    def note(self, text: str) -> None:
        self.lines.append(text)

    def progress(self, read: int, total: int, tokens: int, done: int) -> None:
        pass


def make_tokenizer(path: Path, eot: str | None = EOT, words: int = 400, **settings: Any) -> Path:
    """Write a byte-level BPE tokenizer with few ids; ``settings`` replaces fields of its JSON."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    text = " ".join(f"def word{number} return the value of it" for number in range(words))
    trainer = trainers.BpeTrainer(
        vocab_size=256 + words // 4, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([text], trainer=trainer)
    if eot is not None:
        tokenizer.add_special_tokens([AddedToken(eot, special=True)])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(json.loads(tokenizer.to_str()) | settings))
    return path


def write_files(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def rows(*lines: Any) -> str:
    """JSON Lines."""
    return "".join(json.dumps(line) + "\n" for line in lines)


def texts(count: int, seed: int = 0) -> dict[str, str]:
    """Documents that all differ, by file name."""
    return {f"d{number:04}.txt": f"def word{seed} {number}\n" * (1 + number % 7) for number in range(count)}


def pack_into(out: Path, *sources: Path | str, report: Notes | None = None, **options: Any) -> Packed:
    given = tuple(map(str, sources))
    return pack(Request(given, out, **{"phase": "p", "val": 0.1, **options}), report or Notes())


def documents(packed: Packed, split: str = "train") -> list[str]:
    """The texts of a split, in order, as its tokenizer decodes them."""
    tokenizer = Tokenizer.from_file(str(packed.target / "tokenizer.json"))
    manifest = packed.manifest
    if not manifest["splits"][split]["documents"]:
        return []
    shards = open_shards(packed.target.parent, packed.target.name, split, manifest["vocab_size"])
    ids = np.concatenate([shards.read(number, 0, shard.tokens) for number, shard in enumerate(shards.shards)])
    ends = np.flatnonzero(ids == manifest["eot_id"])
    assert ends[-1] == len(ids) - 1
    parts = np.split(ids, ends + 1)[:-1]
    return [tokenizer.decode(part[:-1].tolist(), skip_special_tokens=False) for part in parts]


def contents(folder: Path) -> dict[str, str]:
    """The hash of every file below a folder, by its name there."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
