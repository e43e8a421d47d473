"""Greedy generation picks the most likely token of a full forward; sampling repeats with its seed."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.generate import Sampling, generate
from model.latent_cache import LatentCache
from model.transformer import MLATransformer, build
from profiles.errors import SpecError, UserError
from profiles.model_config import ModelConfig

CONFIG = ModelConfig(
    hidden_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    qk_nope_head_dim=6,
    qk_rope_head_dim=6,
    v_head_dim=12,
    kv_lora_rank=12,
    intermediate_size=32,
    vocab_size=40,
    # wide, so that the logits of a fresh model are far apart
    initializer_range=0.4,
)

GREEDY = Sampling(temperature=0)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model() -> MLATransformer:
    return build(CONFIG, 1, checkpointing="full")


def generated(
    model: MLATransformer,
    prompt: list[int],
    count: int,
    context: int,
    sampling: Sampling = GREEDY,
    eot: int | None = None,
) -> list[int]:
    return list(generate(model, prompt, count, LatentCache(model, context), sampling, eot))


def most_likely(model: MLATransformer, ids: list[int]) -> int:
    """Return the greedy next token by the ordinary forward of the whole text."""
    with torch.no_grad():
        return int(model(torch.tensor([ids]))[0, -1].argmax())


def test_greedy_is_the_argmax_of_the_full_forward(model: MLATransformer) -> None:
    ids = [3, 1, 4]
    written = generated(model, ids, 10, 64)
    assert len(written) == 10
    with torch.no_grad():
        logits = model(torch.tensor([ids + written]))[0]
    assert written == logits[len(ids) - 1 : -1].argmax(-1).tolist()


def test_only_the_last_context_tokens_are_seen(model: MLATransformer) -> None:
    tail = [7, 8, 9, 10]
    one, two = ([*head, *tail] for head in ([1, 2, 3], [30, 31]))
    assert generated(model, one, 12, 4) == generated(model, two, 12, 4)


@pytest.mark.parametrize(("context", "prompt"), [(8, 5), (8, 8), (7, 3), (2, 1), (1, 1)])
def test_a_text_longer_than_the_context_continues_from_its_later_half(
    model: MLATransformer, context: int, prompt: int
) -> None:
    ids = list(range(11, 11 + prompt))
    start = 0  # of what the model sees
    expected: list[int] = []
    for _ in range(3 * context + 2):
        text = ids + expected
        if len(text) - start > context:
            start = len(text) - max(1, context // 2)
        expected.append(most_likely(model, text[start:]))
    assert generated(model, ids, len(expected), context) == expected


def test_a_cache_can_be_reused_for_another_text(model: MLATransformer) -> None:
    cache = LatentCache(model, 16)
    texts = [list(generate(model, [5, 6], 8, cache, Sampling(temperature=0))) for _ in range(2)]
    assert texts[0] == texts[1] == generated(model, [5, 6], 8, 16)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**40), temperature=st.floats(0.2, 5.0), top_p=st.floats(0.05, 1.0))
def test_a_seed_repeats_itself(model: MLATransformer, seed: int, temperature: float, top_p: float) -> None:
    sampling = Sampling(temperature, top_p, seed)
    torch.manual_seed(0)
    first = generated(model, [5], 8, 8, sampling)
    torch.manual_seed(1)
    assert generated(model, [5], 8, 8, sampling) == first
    assert all(0 <= token < CONFIG.vocab_size for token in first)


def test_seeds_differ(model: MLATransformer) -> None:
    assert len({tuple(generated(model, [5], 8, 8, Sampling(3.0, seed=seed))) for seed in range(5)}) > 1


def test_samples_follow_the_probabilities_of_the_nucleus(model: MLATransformer) -> None:
    prompt, top_p, draws = [5, 6], 0.7, 600
    with torch.no_grad():
        probs = (model(torch.tensor([prompt]))[0, -1].double() / 2.0).softmax(-1)
    nucleus: dict[int, float] = {}
    for token in probs.argsort(descending=True).tolist():
        nucleus[token] = probs[token].item()
        if sum(nucleus.values()) >= top_p:
            break
    assert 1 < len(nucleus) < CONFIG.vocab_size
    cache = LatentCache(model, 8)
    seen = Counter(next(generate(model, prompt, 1, cache, Sampling(2.0, top_p, seed))) for seed in range(draws))
    assert seen.keys() <= nucleus.keys()
    total = sum(nucleus.values())
    for token, probability in nucleus.items():
        p = probability / total
        # five standard deviations of a binomial count
        assert abs(seen[token] - draws * p) <= 5 * (draws * p * (1 - p)) ** 0.5 + 1


@pytest.mark.parametrize("sampling", [Sampling(top_p=1e-9), Sampling(temperature=1e-300)])
def test_the_narrowest_sampling_is_greedy(model: MLATransformer, sampling: Sampling) -> None:
    assert generated(model, [2], 6, 8, sampling) == generated(model, [2], 6, 8)


def test_it_stops_before_the_end_of_text_token(model: MLATransformer) -> None:
    plain = generated(model, [2], 10, 16)
    eot = plain[4]
    assert generated(model, [2], 10, 16, eot=eot) == plain[: plain.index(eot)]


def test_it_streams_and_keeps_gradients_enabled_between_tokens(model: MLATransformer) -> None:
    for _ in islice(generate(model, [2], 10**9, LatentCache(model, 4), Sampling()), 3):
        assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("prompt", "message"),
    [([], "prompt: is empty"), ([1, 40], "token id 40 is not in 0..39"), ([-1], "token id -1")],
)
def test_an_invalid_prompt_raises_at_the_call(model: MLATransformer, prompt: list[int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        generate(model, prompt, 4, LatentCache(model, 8), Sampling())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": -0.5}, "temperature: -0.5 is not"),
        ({"temperature": float("nan")}, "temperature: nan"),
        ({"temperature": float("inf")}, "temperature: inf"),
        ({"top_p": 0.0}, "top_p: 0.0 is not above 0"),
        ({"top_p": 1.5}, "top_p: 1.5"),
        ({"seed": -1}, "seed: -1"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Sampling(**wrong)  # type: ignore[arg-type]
