"""Packs that leave out documents which are nearly the same as an earlier one."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.pack import batches, packing
from data.pack.near_duplicates import NearDuplicates, bands_for, bands_of
from profiles.errors import UserError
from tests.unit.data.packs import Notes, contents, documents, make_tokenizer, pack_into, write_files


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json")


def text(seed: int, change: int = 0, words: int = 200) -> str:
    """Random words; ``change`` of them, at the end, are other ones."""
    chosen = random.Random(seed).choices(range(400), k=words)
    chosen[words - change :] = random.Random(change).choices(range(400, 800), k=change)
    return " ".join(f"word{number}" for number in chosen)


def rows(path: Path, texts: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def near(out: Path, *sources: Path, **options: Any) -> Any:
    return pack_into(out, *sources, **{"val": 0, "near_duplicates": 0.8, **options})


def test_the_first_of_documents_that_are_nearly_the_same_is_kept(tmp_path: Path, tokenizer: Path) -> None:
    first, second, third = text(1), text(2), text(3, words=30)
    given = [first, text(1, 2), second, first, "ab", text(2, 90), text(1, 3), third, "ab cd", second]
    packed = near(tmp_path / "out", rows(tmp_path / "a.jsonl", given), tokenizer=tokenizer)
    assert documents(packed) == [first, second, "ab", text(2, 90), third, "ab cd"]
    assert (packed.progress.duplicates, packed.progress.near_duplicates) == (2, 2)
    (record,) = packed.manifest["packs"]
    assert record["options"]["near_duplicates"] == 0.8 and record["near_duplicates"] == 2
    assert set(record["versions"]) == {"fastokens", "tokenizers", "rensa"}
    alone = pack_into(tmp_path / "alone", tmp_path / "a.jsonl", tokenizer=tokenizer, val=0)
    assert len(documents(alone)) == 8 and alone.manifest["packs"][0]["near_duplicates"] == 0


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "BATCH_BYTES", 3000)
    monkeypatch.setattr(packing, "_COMMIT_SECONDS", 0)
    monkeypatch.setattr(packing, "_COMMIT_SHARE", 0)


def many(path: Path, seed: int = 0) -> Path:
    """Files of rows of which many are alike, in this file and in others."""
    for number in range(4):
        texts = [text(seed + (number * 7 + k) % 11, change=(number + k) % 4) for k in range(10)]
        rows(path / f"{number}.jsonl", texts)
    return path


@pytest.mark.usefixtures("small_batches")
def test_a_pack_that_goes_on_leaves_out_the_same_documents(tmp_path: Path, tokenizer: Path) -> None:
    source = many(tmp_path / "in")
    options = {"tokenizer": tokenizer, "val": 0.3, "shard_tokens": 1500}
    whole = near(tmp_path / "whole", source, **options)
    assert whole.progress.near_duplicates > 10 and whole.progress.duplicates > 0 and whole.progress.documents > 9
    assert contents(near(tmp_path / "threads", source, workers=3, **options).target) == contents(whole.target)

    class Interrupt(Notes):
        """Ends a pack at its third batch, when two are committed."""

        batches = 0

        def progress(self, read: int, total: int, tokens: int, done: int) -> None:
            self.batches += 1
            if self.batches > 2:
                raise KeyboardInterrupt

    ended = 0
    while True:
        try:
            packed = near(tmp_path / "killed", source, report=Interrupt(), **options)
            break
        except KeyboardInterrupt:
            ended += 1
    assert ended > 2
    assert contents(packed.target) == contents(whole.target)


def test_added_documents_are_compared_with_those_that_are_there(tmp_path: Path, tokenizer: Path) -> None:
    pack_into(tmp_path / "out", rows(tmp_path / "a.jsonl", [text(1), text(2)]), tokenizer=tokenizer, val=0.5)
    packed = near(tmp_path / "out", rows(tmp_path / "b.jsonl", [text(1, 1), text(3), text(2, 1)]), append=True)
    assert (packed.progress.documents, packed.progress.near_duplicates) == (1, 2)
    nothing = near(tmp_path / "out", rows(tmp_path / "c.jsonl", [text(3, 1)]), append=True)
    assert (nothing.progress.documents, nothing.progress.near_duplicates) == (0, 1)


@pytest.mark.parametrize("asked", [0.5, 0.7, 0.8, 0.9, 0.95])
def test_how_alike_documents_are_that_are_found(tmp_path: Path, asked: float) -> None:
    """Sets of 400 runs of which a part is common to both; much below the bound few are found, above it nearly all."""
    rng = np.random.default_rng(0)
    bands, _ = bands_for(asked)
    found = {}
    for alike in (asked - 0.2, (1 + asked) / 2):
        common = round(404 * 2 * alike / (1 + alike))
        first = rng.integers(0, 1 << 32, (200, 404)).astype(np.uint32)
        second = np.where(np.arange(404) < common, first, rng.integers(0, 1 << 32, (200, 404))).astype(np.uint32)
        table, counts = NearDuplicates(tmp_path / "near", asked), np.full(200, 404)
        assert table.add(bands_of(first.ravel(), counts, asked)).all()
        hashes = bands_of(second.ravel(), counts, asked)
        assert hashes.shape == (200 * bands, 2)
        found[alike] = 1 - table.add(hashes).mean()
        table.close()
    low, high = found.values()
    assert low < 0.15 and high > 0.85, found


def test_bands_do_not_depend_on_the_documents_around_them() -> None:
    rng = np.random.default_rng(0)
    counts = np.array([1, 4, 5, 6, 300, 0, 2])
    ids = rng.integers(0, 1 << 16, counts.sum()).astype(np.uint16)
    whole = bands_of(ids, counts, 0.8).reshape(len(counts), -1)
    starts = np.cumsum(counts) - counts
    alone = [bands_of(ids[s : s + n], np.array([n]), 0.8).ravel() for s, n in zip(starts, counts, strict=True)]
    assert (whole == np.stack(alone)).all()
    assert len(np.unique(whole, axis=0)) == len(counts)


def test_without_the_extra_it_says_how_to_install_it(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rensa", None)
    source = write_files(tmp_path / "in", {"a.txt": "a"})
    with pytest.raises(UserError, match=r"--near-duplicates: needs rensa: .*install '.*\[neardup\]'"):
        near(tmp_path / "out", source, tokenizer=tokenizer)
    assert not (tmp_path / "out").exists()
