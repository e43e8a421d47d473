"""Parameter counts, initialization, causality and precision of the decoder."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.loss import resolve_loss
from model.transformer import MLATransformer, build
from profiles.model_config import NAMED_MODELS, ModelConfig
from tests.unit.model.gradients import grad_of

CONFIG = ModelConfig(
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=2,
    qk_nope_head_dim=8,
    qk_rope_head_dim=8,
    v_head_dim=16,
    kv_lora_rank=16,
    intermediate_size=64,
    vocab_size=101,
)
WITH_Q_LORA = dataclasses.replace(CONFIG, q_lora_rank=12)
TIED = dataclasses.replace(CONFIG, tie_word_embeddings=True)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def tokens(batch: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, CONFIG.vocab_size, (batch, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("config", [*NAMED_MODELS.values(), CONFIG, WITH_Q_LORA, TIED])
def test_the_parameter_count_is_the_configs(config: ModelConfig) -> None:
    with torch.device("meta"):
        model = MLATransformer(config)
    assert all(p.is_meta for p in model.parameters())
    assert sum(p.numel() for p in model.parameters()) == config.params


def test_mla_1b_has_its_published_size() -> None:
    assert NAMED_MODELS["mla-1b"].params == 1_024_849_664


def test_the_same_seed_gives_the_same_weights_in_any_environment() -> None:
    first = build(WITH_Q_LORA, 7).state_dict()
    state_before = torch.get_rng_state()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            second = build(WITH_Q_LORA, 7, checkpointing="full").state_dict()
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(torch.get_rng_state(), state_before)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert value.dtype == second[name].dtype == torch.float32
        assert torch.equal(value, second[name]), name


def test_another_dtype_is_the_same_model_rounded() -> None:
    wide, narrow = build(CONFIG, 7).state_dict(), build(CONFIG, 7, dtype=torch.bfloat16).state_dict()
    assert all(torch.equal(value.bfloat16(), narrow[name]) for name, value in wide.items())


def test_another_seed_gives_other_numbers() -> None:
    first, second = build(CONFIG, 7).state_dict(), build(CONFIG, 8).state_dict()
    assert not any(torch.equal(value, second[name]) for name, value in first.items() if value.dim() > 1)


def test_initial_standard_deviations() -> None:
    config = NAMED_MODELS["mla-tiny"]
    for name, value in build(config, 1).named_parameters():
        if value.dim() == 1:
            assert torch.equal(value, torch.ones_like(value)), name
            continue
        writes = name.endswith(("o_proj.weight", "down_proj.weight"))
        wanted = config.initializer_range / ((2 * config.num_hidden_layers) ** 0.5 if writes else 1.0)
        assert value.std().item() == pytest.approx(wanted, rel=0.03), name
        assert abs(value.mean().item()) < 0.03 * wanted, name


def test_a_tied_head_is_the_embedding() -> None:
    model = build(TIED, 1, checkpointing="full")
    assert model.lm_head.weight is model.model.embed_tokens.weight
    model(tokens(1, 5)).sum().backward()
    assert model.lm_head.weight.grad is not None


@settings(max_examples=20, deadline=None)
@given(length=st.integers(2, 24), data=st.data())
def test_a_later_token_never_changes_earlier_logits(length: int, data: st.DataObject) -> None:
    at = data.draw(st.integers(1, length - 1))
    model = build(WITH_Q_LORA, 1, dtype=torch.float64)
    before = tokens(2, length, seed=length)
    after = before.clone()
    after[:, at] = (after[:, at] + 1) % CONFIG.vocab_size
    with torch.no_grad():
        change = (model(before) - model(after)).abs().amax((0, 2))
    assert change[:at].max().item() <= 1e-14
    assert change[at].item() > 1e-6


def test_order_of_earlier_tokens_matters() -> None:
    model = build(dataclasses.replace(CONFIG, num_hidden_layers=1, initializer_range=0.3), 1)
    with torch.no_grad():
        one, two = model(torch.tensor([[5, 9, 3]]))[0, -1], model(torch.tensor([[9, 5, 3]]))[0, -1]
    assert (one - two).abs().max().item() > 1e-3


def test_a_bf16_stream_is_close_to_fp32_and_keeps_the_weights_in_fp32() -> None:
    loss, ids = resolve_loss("plain"), tokens(2, 18)
    found = {}
    for stream in (None, torch.bfloat16):
        model = build(WITH_Q_LORA, 3, stream=stream)
        value = loss(model, ids[:, :-1], ids[:, 1:])
        value.backward()
        assert value.dtype == torch.float32
        found[stream] = value.item(), {name: grad_of(p) for name, p in model.named_parameters()}
    (exact, exact_grads), (rounded, rounded_grads) = found[None], found[torch.bfloat16]
    assert rounded == pytest.approx(exact, rel=1e-3) and rounded != exact
    for name, wanted in exact_grads.items():
        assert rounded_grads[name].dtype == torch.float32
        assert (rounded_grads[name] - wanted).norm() <= 0.03 * wanted.norm(), name
