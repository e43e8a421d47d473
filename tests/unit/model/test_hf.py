"""The Hugging Face config survives a round trip, and no default is silent."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

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
yarns = st.fixed_dictionaries(
    {
        "yarn_factor": st.floats(1.001, 1000.0),
        "yarn_original_context": sizes,
        "yarn_beta_fast": st.floats(8.0, 64.0),
        "yarn_beta_slow": st.floats(0.1, 7.0),
        "rope_theta": st.floats(2.0, 1e8),
    },
    optional={"yarn_mscale": st.floats(0.1, 2.0), "yarn_mscale_all_dim": st.floats(0.1, 2.0)},
)
YARN = dataclasses.replace(TINY, yarn_factor=8.0, yarn_original_context=2048)


def yarn(**changes: object) -> dict[str, object]:
    """Return the rope table of a YaRN model, with changes."""
    return {**to_hf_config(YARN, 16384)["rope_parameters"], **changes}


@given(config=configs, yarn=st.just({}) | yarns, context=sizes)
def test_round_trip_through_json(config: ModelConfig, yarn: dict[str, Any], context: int) -> None:
    config = dataclasses.replace(config, **yarn)
    assert from_hf_config(json.loads(json.dumps(to_hf_config(config, context)))) == config


def test_keys_without_common_defaults_are_written() -> None:
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


def test_yarn_is_written_where_each_program_reads_it() -> None:
    raw = to_hf_config(YARN, 16384)
    assert raw["rope_scaling"] == raw["rope_parameters"]
    assert raw["rope_scaling"]["type"] == raw["rope_scaling"]["rope_type"] == "yarn"
    assert (raw["rope_theta"], raw["rope_scaling"]["rope_theta"], raw["rope_scaling"]["factor"]) == (1e4, 1e4, 8.0)
    assert "rope_scaling" not in to_hf_config(TINY, 256)


@pytest.mark.parametrize("place", ["rope_scaling", "rope_parameters"])
def test_yarn_is_read_from_either_key(place: str) -> None:
    """DeepSeek and transformers 5 write different keys."""
    raw = to_hf_config(YARN, 16384)
    for name in {"rope_scaling", "rope_parameters"} - {place}:
        del raw[name]
    assert from_hf_config(raw) == YARN


def test_missing_keys_have_the_defaults_of_other_programs() -> None:
    raw = to_hf_config(TINY, 256)
    raw["rope_parameters"] = None
    raw["rope_scaling"] = {"type": "yarn", "factor": 4, "original_max_position_embeddings": 64, "beta_fast": None}
    wanted: dict[str, Any] = {"yarn_factor": 4.0, "yarn_original_context": 64, "yarn_mscale_all_dim": 0.0}
    assert from_hf_config(raw) == dataclasses.replace(TINY, **wanted)


@pytest.mark.parametrize("place", ["rope_theta", "rope_parameters"])
def test_theta_is_read_from_either_key(place: str) -> None:
    raw = to_hf_config(TINY, 256)
    del raw["rope_theta"], raw["rope_parameters"]
    raw[place] = 5e5 if place == "rope_theta" else {"rope_type": "default", "rope_theta": 5e5}
    assert from_hf_config(raw).rope_theta == 5e5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "llama"}, "model_type: 'llama'"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"attention_bias": True}, "attention_bias"),
        ({"rope_interleave": False}, "rope_interleave"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor: 0.5"),
        ({"head_dim": 16}, "head_dim: 16 is not supported, only 32"),
        ({"first_k_dense_replace": 3}, "experts"),
        ({"num_key_value_heads": 1}, "num_key_value_heads"),
        ({"q_lora_rank": 0}, "write null"),
        ({"hidden_size": "192"}, "hidden_size: '192'"),
        ({"num_attention_heads": True}, "num_attention_heads"),
        ({"qk_rope_head_dim": 7}, "qk_rope_head_dim: 7 is odd"),
        ({"rope_theta": 5e5}, "differ"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 4.0, "rope_theta": 1e4}}, "'llama3'"),
        ({"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2.0}}, "'linear'"),
        ({"rope_scaling": ["yarn"]}, "rope_scaling: \\['yarn'\\] is not a table"),
        ({"rope_theta": "10000"}, "rope_theta: '10000'"),
        ({"rope_theta": [1e4]}, "rope_theta"),
        ({"rms_norm_eps": None}, "rms_norm_eps: None"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps: nan"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings: 1 is not true or false"),
        ({"first_k_dense_replace": None}, "first_k_dense_replace"),
        ({"rope_scaling": yarn()}, "rope_scaling and rope_parameters differ"),
    ],
)
def test_unsupported_models_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        from_hf_config(to_hf_config(TINY, 256) | change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"factor": None}, "factor is missing"),
        ({"factor": 0.5}, "factor: 0.5"),
        ({"factor": True}, "factor: True"),
        ({"original_max_position_embeddings": None}, "original_max_position_embeddings is missing"),
        ({"original_max_position_embeddings": 2048.5}, "original_max_position_embeddings: 2048.5"),
        ({"beta_fast": 0}, "beta_fast: 0"),
        ({"beta_fast": 1.0}, "beta_fast: 1 is not above beta_slow"),
        ({"mscale": None}, "mscale is missing"),
        ({"mscale": 0.7, "mscale_all_dim": None}, "mscale: 0.7 without mscale_all_dim"),
        ({"attention_factor": 1.5}, "attention_factor is not supported"),
        ({"truncate": False}, "truncate is not supported"),
    ],
)
def test_yarn_tables_that_programs_read_differently_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        from_hf_config(to_hf_config(TINY, 256) | {"rope_parameters": yarn(**change)})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["model_type", "hidden_size", "kv_lora_rank", "q_lora_rank", "first_k_dense_replace"])
def test_a_missing_key_is_refused_by_name(key: str) -> None:
    raw = to_hf_config(TINY, 256)
    del raw[key]
    with pytest.raises(UserError, match=f"{key} is missing"):
        from_hf_config(raw)
