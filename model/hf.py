"""The shape of a model as a Hugging Face ``config.json`` of DeepSeek-V3, and back.

Weights need no translation: parameters carry the Hugging Face names already. The config does, because its readers
(transformers, vLLM, llama.cpp, mlx-lm) each look in another place and silently take a default where they find nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from profiles.errors import UserError
from profiles.model_config import ModelConfig

# Defaults of DeepSeek-V3 readers for what may be left out.
_DEFAULTS = {
    "rms_norm_eps": 1e-6,
    "initializer_range": 0.02,
    "tie_word_embeddings": False,
}
_DEFAULT_THETA = 10000.0


def to_hf_config(config: ModelConfig, context: int) -> dict[str, Any]:
    """The content of ``config.json`` for a model trained on ``context`` tokens; plain JSON values.

    No special tokens are named: their ids belong to the tokenizer, and DeepSeek's defaults would stop at token 1.
    """
    shape = {field.name: getattr(config, field.name) for field in fields(config)}
    theta = shape.pop("rope_theta")
    return {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3",
        **shape,  # q_lora_rank is null where there is none: a 0 makes readers build an empty projection
        "num_key_value_heads": config.num_attention_heads,
        "max_position_embeddings": context,
        # transformers 5 reads the table, everyone else the plain key
        "rope_theta": theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        "rope_interleave": True,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        # Every layer is dense; readers still want integers for the experts that no layer has.
        "first_k_dense_replace": config.num_hidden_layers,
        "moe_layer_freq": 1,
        "moe_intermediate_size": config.intermediate_size,
        "n_routed_experts": 1,
        "n_shared_experts": 1,
        "num_experts_per_tok": 1,
        "n_group": 1,
        "topk_group": 1,
        "norm_topk_prob": True,
        "routed_scaling_factor": 1.0,
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
        "num_nextn_predict_layers": 0,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }


def from_hf_config(raw: Mapping[str, Any]) -> ModelConfig:
    """The shape behind a parsed ``config.json``.

    Raises UserError where a key is missing or where it describes a model that this package would compute differently
    (experts, biases, scaled or non-interleaved rope).
    """
    for key in ("model_type", "first_k_dense_replace"):
        _demand(raw, key)
    _refuse_unless(raw, "model_type", "deepseek_v3")
    _refuse_unless(raw, "hidden_act", "silu")
    _refuse_unless(raw, "attention_bias", False)
    _refuse_unless(raw, "rope_interleave", True)
    values: dict[str, Any] = {"rope_theta": _theta(raw)}
    for field in fields(ModelConfig):
        if field.name == "rope_theta":
            continue
        if field.name not in _DEFAULTS:
            _demand(raw, field.name)
        values[field.name] = raw.get(field.name, _DEFAULTS.get(field.name))
    for name, value in values.items():
        is_count = name not in ("rope_theta", *_DEFAULTS) and not (name == "q_lora_rank" and value is None)
        if is_count and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            hint = "; write null for queries without a latent" if name == "q_lora_rank" else ""
            raise UserError(f"config.json: {name}: {value!r} is not a whole number from 1 up{hint}")
    config = ModelConfig(**values)
    if config.qk_rope_head_dim % 2:
        raise UserError(f"config.json: qk_rope_head_dim: {config.qk_rope_head_dim} is odd; rope turns pairs")
    if raw["first_k_dense_replace"] < config.num_hidden_layers:
        raise UserError(
            "config.json: first_k_dense_replace is below num_hidden_layers; layers of experts do not run here"
        )
    if raw.get("num_key_value_heads") not in (None, config.num_attention_heads):
        raise UserError(
            "config.json: num_key_value_heads differs from num_attention_heads; latent attention has one kind"
        )
    return config


def _demand(raw: Mapping[str, Any], key: str) -> None:
    if key not in raw:
        raise UserError(f"config.json: {key} is missing; readers do not agree on a default, so write it out")


def _refuse_unless(raw: Mapping[str, Any], key: str, wanted: object) -> None:
    if raw.get(key, wanted) != wanted:
        raise UserError(f"config.json: {key}: {raw[key]!r} does not run here, only {wanted!r}")


def _theta(raw: Mapping[str, Any]) -> float:
    table = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    kind = table.get("rope_type", table.get("type", "default"))
    if kind != "default":
        raise UserError(f"config.json: rope of type {kind!r} does not run here, only 'default'")
    named = {theta for theta in (raw.get("rope_theta"), table.get("rope_theta")) if theta is not None}
    if len(named) > 1:
        raise UserError(
            f"config.json: rope_theta and rope_parameters.rope_theta differ: {sorted(named)}; make them one"
        )
    return float(named.pop()) if named else _DEFAULT_THETA
