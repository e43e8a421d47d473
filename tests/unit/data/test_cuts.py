"""A long text is cut only where its tokenizer cuts it: the oracle gives the parts the ids of the whole."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from data.pack import encode_batch
from data.pack.batches import Batch
from data.pack.cuts import can_cut, places
from data.pack.encoder import Encoder
from data.pack.sources import Source
from data.pack.training import PATTERN as QWEN2
from data.pack.vocabulary import Vocabulary, load_vocabulary

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = QWEN2.replace(r"\p{N}|", r"\p{N}{1,3}|")
CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+$|\s*[\r\n]|\s+(?!\S)|\s"
)
UPPER, LOWER, SUFFIX = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}", "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]*[{LOWER}]+{SUFFIX}|[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]+[{LOWER}]*{SUFFIX}"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK = [
    r"\p{N}{1,3}",
    r"[一-龥぀-ゟ゠-ヿ]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"""| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""",
]
KINDS: dict[str, list[str]] = {
    **{"gpt2": [GPT2], "qwen2": [QWEN2], "llama3": [LLAMA3], "cl100k": [CL100K], "o200k": [O200K]},
    **{"tekken": [O200K.replace(SUFFIX, "")], "deepseek": DEEPSEEK},
}
NASTY = "，aZé字ん가ü\u0301\u0958\u00aa1٣'.,;/\"_-<= \t\n\r\u00a0\u3000\u2028😀\u200d"


def splits(*patterns: str) -> list[Any]:
    return [pre_tokenizers.Split(Regex(pattern), "isolated", False) for pattern in patterns]


def tokenizer_of(stages: list[Any], normalizer: Any = None) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(stages)
    if normalizer:
        tokenizer.normalizer = normalizer
    return tokenizer


def words(tokenizer: Tokenizer, text: str) -> list[str]:
    """What BPE gets: each word is encoded alone."""
    normal = tokenizer.normalizer.normalize_str(text) if tokenizer.normalizer else text
    return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("normal", [False, True])
@given(text=st.one_of(st.text(NASTY, min_size=20, max_size=80), st.text(min_size=20, max_size=60)))
def test_the_words_of_the_parts_are_those_of_the_text(kind: str, normal: bool, text: str) -> None:
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer = tokenizer_of([*splits(*KINDS[kind]), byte_level], normalizers.NFC() if normal else None)
    assert can_cut(json.loads(tokenizer.to_str()))
    document = text.encode()
    parts = [document[start:end].decode() for start, end in pairwise([0, *places(document, 1), len(document)])]
    assert "".join(parts) == text
    assert [word for part in parts for word in words(tokenizer, part)] == words(tokenizer, text)


def test_usual_text_is_cut_into_parts_of_the_size_asked_for() -> None:
    for text in (
        "def f(x):\n    return x + 1\n" * 50,
        "字字字，字字。\n" * 50,
        "dGhpcyBpcyBiYXNl/NjQ+" * 50,
        "été noël " * 90,
    ):
        document = text.encode()
        sizes = np.diff([0, *places(document, 100), len(document)])
        assert len(sizes) > 5 and sizes[:-1].min() >= 100 and sizes.max() < 250, text[:9]


NOT_CUT: dict[str, dict[str, Any]] = {
    "an unknown pattern": {"stages": splits(r"\p{L}+ \p{L}+|\s+|\p{N}")},
    "letters in no word": {"stages": splits(r"\p{N}|\s+")},
    "words kept with what is before": {"stages": [pre_tokenizers.Split(Regex(GPT2), "merged_with_previous", False)]},
    "a space before each text": {"stages": [pre_tokenizers.ByteLevel(add_prefix_space=True)]},
    "one word": {"stages": []},
    "metaspace": {"stages": [pre_tokenizers.Metaspace()]},
    "letters taken apart": {"stages": splits(GPT2), "normalizer": normalizers.NFD()},
}


@pytest.mark.parametrize("kind", NOT_CUT)
def test_other_tokenizers_get_a_text_whole(kind: str) -> None:
    assert not can_cut(json.loads(tokenizer_of(**NOT_CUT[kind]).to_str()))


@pytest.mark.parametrize(
    ("added", "cut"),
    [
        ({"content": "a b", "special": False}, False),
        ({"content": "<x>", "special": False, "rstrip": True}, False),
        ({"content": "<x>", "special": False}, True),
        ({"content": "a b", "special": True}, True),
    ],
)
def test_a_token_that_may_lie_across_a_cut_forbids_it(added: dict[str, Any], cut: bool) -> None:
    settings = json.loads(tokenizer_of(splits(GPT2)).to_str())
    assert can_cut({**settings, "added_tokens": [added]}) is cut


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gpt2") / "tokenizer.json"
    tokenizer = tokenizer_of([pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=["</s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([Path(__file__).read_text()], trainer=trainer)
    tokenizer.save(str(path))
    return path


def oracle_of(vocabulary: Vocabulary) -> Tokenizer:
    oracle = Tokenizer.from_str(vocabulary.encoding)
    oracle.encode_special_tokens = True
    return oracle


@pytest.mark.parametrize("reference", [False, True])
@settings(max_examples=50)
@given(text=st.text(NASTY, min_size=50, max_size=300))
def test_a_document_has_the_ids_of_the_oracle(gpt2: Path, reference: bool, text: str) -> None:
    vocabulary = load_vocabulary(gpt2)
    assert vocabulary.cuts
    encoder = Encoder(vocabulary, reference)
    encoder.at_once, encoder.part = 30, 15
    batch = Batch([text.encode(), b"short"], [None, None], [Source("a", 0), Source("b", 0)])
    found = encode_batch.encode_batch(batch, encoder, vocabulary)
    oracle = oracle_of(vocabulary)
    expected = [[*oracle.encode(part).ids, vocabulary.eot_id] for part in (text, "short")]
    assert found.ids.tolist() == [id for ids in expected for id in ids]
    assert found.tokens.tolist() == [len(ids) for ids in expected]


def test_what_cannot_be_cut_is_left_out_where_it_is_too_long_to_be_held(gpt2: Path) -> None:
    vocabulary = load_vocabulary(gpt2)
    encoder = Encoder(vocabulary)
    encoder.most = 1 << 20
    texts = [b"." * ((1 << 20) + 1), b"word " * (1 << 18), b"a"]
    batch = Batch(texts, [None] * 3, [Source(name, 0) for name in "abc"])
    encoder.at_once, encoder.part = 1 << 18, 1 << 17
    found = encode_batch.encode_batch(batch, encoder, vocabulary)
    assert found.bytes.tolist() == [len(text) for text in texts[1:]]
    assert found.skipped.to_dict() == {"has 1 MiB that the tokenizer does not cut": {"count": 1, "files": ["a"]}}


@pytest.mark.faults
def test_a_document_of_many_mib_has_the_ids_of_the_oracle(gpt2: Path) -> None:
    """With the sizes of a pack: six megabytes of this file, cut behind two."""
    text = (Path(__file__).read_text() * (1 + (6 << 20) // Path(__file__).stat().st_size)).encode()
    vocabulary = load_vocabulary(gpt2)
    found = encode_batch.encode_batch(Batch([text], [None], [Source("a", 0)]), Encoder(vocabulary), vocabulary)
    assert places(text, 2 << 20)
    assert np.array_equal(found.ids[:-1], oracle_of(vocabulary).encode(text.decode()).ids)
