"""Writing on: greedy is the likeliest token of a full forward, draws repeat with their seed."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.generate import generate
from model.transformer import MLATransformer, build
from profiles.errors import UserError
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


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model() -> MLATransformer:
    return build(CONFIG, 1, checkpointing="full")


def test_greedy_is_the_argmax_of_the_full_forward(model: MLATransformer) -> None:
    ids = [3, 1, 4]
    written = list(generate(model, ids, 10, context=64, temperature=0))
    assert len(written) == 10
    with torch.no_grad():
        logits = model(torch.tensor([ids + written]))[0]
    assert written == logits[len(ids) - 1 : -1].argmax(-1).tolist()


def test_only_the_last_context_tokens_are_seen(model: MLATransformer) -> None:
    tail = [7, 8, 9, 10]
    one, two = ([*head, *tail] for head in ([1, 2, 3], [30, 31]))
    assert list(generate(model, one, 12, context=4, temperature=0)) == list(
        generate(model, two, 12, context=4, temperature=0)
    )


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**40), temperature=st.floats(0.2, 5.0), top_p=st.floats(0.05, 1.0))
def test_a_seed_repeats_itself(model: MLATransformer, seed: int, temperature: float, top_p: float) -> None:
    def write() -> list[int]:
        return list(generate(model, [5], 8, context=8, temperature=temperature, top_p=top_p, seed=seed))

    torch.manual_seed(0)
    first = write()
    torch.manual_seed(1)
    assert write() == first
    assert all(0 <= token < CONFIG.vocab_size for token in first)


def test_seeds_differ(model: MLATransformer) -> None:
    texts = {tuple(generate(model, [5], 8, context=8, temperature=3.0, seed=seed)) for seed in range(5)}
    assert len(texts) > 1


def test_draws_follow_the_probabilities_of_the_nucleus(model: MLATransformer) -> None:
    prompt, top_p, draws = [5, 6], 0.7, 600
    with torch.no_grad():
        probs = (model(torch.tensor([prompt]))[0, -1].double() / 2.0).softmax(-1)
    nucleus: dict[int, float] = {}
    for token in probs.argsort(descending=True).tolist():
        nucleus[token] = probs[token].item()
        if sum(nucleus.values()) >= top_p:
            break
    assert 1 < len(nucleus) < CONFIG.vocab_size
    seen = Counter(
        next(generate(model, prompt, 1, context=8, temperature=2.0, top_p=top_p, seed=seed)) for seed in range(draws)
    )
    assert seen.keys() <= nucleus.keys()
    total = sum(nucleus.values())
    for token, probability in nucleus.items():
        p = probability / total
        # five standard deviations of a binomial count
        assert abs(seen[token] - draws * p) <= 5 * (draws * p * (1 - p)) ** 0.5 + 1


@pytest.mark.parametrize("settings", [{"top_p": 1e-9}, {"temperature": 1e-300}])
def test_the_narrowest_draw_is_greedy(model: MLATransformer, settings: dict[str, float]) -> None:
    greedy = list(generate(model, [2], 6, context=8, temperature=0))
    assert list(generate(model, [2], 6, context=8, **settings)) == greedy


def test_it_ends_before_the_end_of_text(model: MLATransformer) -> None:
    plain = list(generate(model, [2], 10, context=16, temperature=0))
    eot = plain[4]
    assert list(generate(model, [2], 10, context=16, temperature=0, eot=eot)) == plain[: plain.index(eot)]


def test_it_streams_and_leaves_gradients_on_between_tokens(model: MLATransformer) -> None:
    for _ in islice(generate(model, [2], 10**9, context=4), 3):
        assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("prompt", "settings", "told"),
    [
        ([], {}, "prompt"),
        ([1, 40], {}, "token id 40 is not in 0..39"),
        ([-1], {}, "token id -1"),
        ([1], {"temperature": -0.5}, "temperature"),
        ([1], {"temperature": float("nan")}, "temperature"),
        ([1], {"top_p": 0.0}, "top_p"),
        ([1], {"top_p": 1.5}, "top_p"),
        ([1], {"context": 0}, "context"),
    ],
)
def test_mistakes_are_told_at_the_call(
    model: MLATransformer, prompt: list[int], settings: dict[str, float], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        generate(model, prompt, 4, **({"context": 8} | settings))
