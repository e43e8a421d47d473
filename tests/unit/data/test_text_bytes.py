"""Bytes of text per token: as dataset.json counts them, else those of a decoded sample."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from data.splits import open_split
from data.text_bytes import bytes_per_token
from profiles.registry import load
from profiles.spec import RunSpec

WORDS = ["a", "bc", "def", "gh", "é"]  # é has two characters of bytes, and two bytes
TEXT = 1 + 2 + 3 + 2 + 2


@pytest.fixture
def spec(tmp_path: Path) -> Callable[..., RunSpec]:
    for phase, repeats in (("web", 4000), ("code", 3)):
        folder = tmp_path / phase / "val"
        folder.mkdir(parents=True)
        np.tile(np.arange(6, dtype="<u2"), repeats).tofile(folder / "a.bin")
        np.tile(np.arange(6, dtype="<u2"), 2 * repeats).tofile(folder / "b.bin")
    return lambda *more: load("cpu_demo", [f"root={tmp_path}", "context=8", *more])


def measured(spec: RunSpec) -> dict[str, float | None]:
    return bytes_per_token(spec, "val", open_split(spec, "val"))


def tokenizer(folder: Path) -> None:
    characters = {
        pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(w)[0][0]: i for i, w in enumerate(WORDS)
    }
    made = Tokenizer(models.WordLevel(characters, unk_token="a"))
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken("<|endoftext|>")])
    assert made.token_to_id("<|endoftext|>") == 5
    made.save(str(folder / "tokenizer.json"))


def dataset(folder: Path, content: Any) -> None:
    (folder / "dataset.json").write_text(json.dumps(content))


def test_what_dataset_json_counts(spec: Callable[..., RunSpec], tmp_path: Path) -> None:
    tokenizer(tmp_path / "web")
    dataset(tmp_path / "web", {"splits": {"val": {"bytes": 500, "tokens": 200}}})
    assert measured(spec("phase=web")) == {"": 2.5}


@pytest.mark.parametrize(
    "content",
    [{}, {"splits": 3}, {"splits": {"val": 1}}, {"splits": {"val": {"bytes": -1, "tokens": "x"}}}, {"splits": {}}],
    ids=json.dumps,
)
def test_else_a_sample_is_decoded(spec: Callable[..., RunSpec], tmp_path: Path, content: Any) -> None:
    dataset(tmp_path / "web", content)
    assert measured(spec("phase=web")) == {"": None}
    tokenizer(tmp_path / "web")
    (found,) = measured(spec("phase=web")).values()
    assert found == pytest.approx(TEXT / 6, rel=2e-3)


def test_a_count_that_cannot_be_is_not_used(spec: Callable[..., RunSpec], tmp_path: Path) -> None:
    """Without a tokenizer only what no text has is known to be wrong."""
    dataset(tmp_path / "web", {"splits": {"val": {"bytes": 5, "tokens": 200}}})
    assert measured(spec("phase=web")) == {"": None}
    dataset(tmp_path / "web", {"splits": {"val": {"bytes": 900, "tokens": 200}}})
    assert measured(spec("phase=web")) == {"": 4.5}
    tokenizer(tmp_path / "web")
    assert measured(spec("phase=web")) == {"": pytest.approx(TEXT / 6, rel=2e-3)}


def test_sources_are_measured_one_by_one(spec: Callable[..., RunSpec], tmp_path: Path) -> None:
    """``code`` has fewer tokens than a block of the sample."""
    tokenizer(tmp_path / "code")
    dataset(tmp_path / "web", {"splits": {"val": {"bytes": 500, "tokens": 200}}})
    found = measured(spec("data.sources={web = 1, code = 2}"))
    assert found == {"web": 2.5, "code": pytest.approx(TEXT / 6)}


def test_a_damaged_tokenizer_measures_nothing(spec: Callable[..., RunSpec], tmp_path: Path) -> None:
    (tmp_path / "web" / "tokenizer.json").write_text("{")
    assert measured(spec("phase=web")) == {"": None}
