"""The Hugging Face config: there and back, and no silent defaults."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.hf import from_hf_config, to_hf_config
from profiles.errors import UserError
from profiles.model_config import NAMED_MODELS, ModelConfig

TINY = NAMED_MODELS["mla-tiny"]
sizes = st.integers(1, 100_000)
configs = st.builds(
    ModelConfig,
    hidden_size=sizes,
    num_hidden_layers=sizes,
    num_attention_heads=sizes,
    qk_nope_head_dim=sizes,
    qk_rope_head_dim=sizes.map(lambda pairs: 2 * pairs),
    v_head_dim=sizes,
    kv_lora_rank=sizes,
    intermediate_size=sizes,
    vocab_size=sizes,
    q_lora_rank=st.none() | sizes,
    rms_norm_eps=st.floats(1e-8, 1e-2),
    rope_theta=st.floats(1.0, 1e8),
    initializer_range=st.floats(1e-4, 1.0),
    tie_word_embeddings=st.booleans(),
)


@given(config=configs, context=sizes)
def test_round_trip_through_json(config: ModelConfig, context: int) -> None:
    assert from_hf_config(json.loads(json.dumps(to_hf_config(config, context)))) == config


def test_what_readers_trip_over_is_written_out() -> None:
    raw = to_hf_config(NAMED_MODELS["mla-1b"], 2048)
    assert raw["rope_theta"] == raw["rope_parameters"]["rope_theta"] == 10000.0
    assert raw["q_lora_rank"] is None
    assert raw["tie_word_embeddings"] is False
    assert raw["first_k_dense_replace"] == raw["num_hidden_layers"] == 27
    assert raw["max_position_embeddings"] == 2048
    assert raw["num_nextn_predict_layers"] == 0
    assert raw["bos_token_id"] is raw["eos_token_id"] is None
    for key in ("n_routed_experts", "n_shared_experts", "num_experts_per_tok", "n_group", "topk_group"):
        assert type(raw[key]) is int


@pytest.mark.parametrize("place", ["rope_theta", "rope_parameters"])
def test_theta_is_found_in_either_place(place: str) -> None:
    raw = to_hf_config(TINY, 256)
    del raw["rope_theta"], raw["rope_parameters"]
    raw[place] = 5e5 if place == "rope_theta" else {"rope_type": "default", "rope_theta": 5e5}
    assert from_hf_config(raw).rope_theta == 5e5


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model_type": "llama"}, "model_type: 'llama'"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"attention_bias": True}, "attention_bias"),
        ({"rope_interleave": False}, "rope_interleave"),
        ({"first_k_dense_replace": 3}, "experts"),
        ({"num_key_value_heads": 1}, "num_key_value_heads"),
        ({"q_lora_rank": 0}, "write null"),
        ({"hidden_size": "192"}, "hidden_size: '192'"),
        ({"num_attention_heads": True}, "num_attention_heads"),
        ({"qk_rope_head_dim": 7}, "qk_rope_head_dim: 7 is odd"),
        ({"rope_theta": 5e5}, "differ"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4}}, "'yarn'"),
        ({"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2.0}}, "'linear'"),
    ],
)
def test_what_would_be_computed_differently_is_refused(change: dict[str, object], told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        from_hf_config(to_hf_config(TINY, 256) | change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["model_type", "hidden_size", "kv_lora_rank", "q_lora_rank", "first_k_dense_replace"])
def test_a_missing_key_is_named(key: str) -> None:
    raw = to_hf_config(TINY, 256)
    del raw[key]
    with pytest.raises(UserError, match=f"{key} is missing"):
        from_hf_config(raw)
