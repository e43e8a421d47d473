"""Converts a model config to and from a Hugging Face ``config.json`` of DeepSeek-V3.

Weights need no conversion, because parameters have the Hugging Face names. The config must be complete: its readers
(transformers, vLLM, llama.cpp, mlx-lm) look in different places and silently use a default for what is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, fields
from typing import Any

from profiles.errors import UserError
from profiles.model_config import ModelConfig
from profiles.printable import brief, brief_key

# Defaults of DeepSeek-V3 readers for keys that may be missing.
_DEFAULTS = {
    "rms_norm_eps": 1e-6,
    "initializer_range": 0.02,
    "tie_word_embeddings": False,
}
_DEFAULT_THETA = 10000.0
# Field of ModelConfig: its key in a rope table of type "yarn".
_YARN = {
    "yarn_factor": "factor",
    "yarn_original_context": "original_max_position_embeddings",
    "yarn_beta_fast": "beta_fast",
    "yarn_beta_slow": "beta_slow",
    "yarn_mscale": "mscale",
    "yarn_mscale_all_dim": "mscale_all_dim",
}
# The defaults that all readers share for missing or null keys of that table.
_YARN_DEFAULTS = {"beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 0.0}
_FIELDS = {field.name: field for field in fields(ModelConfig)}
_ROPE_TABLES = ("rope_scaling", "rope_parameters")


def to_hf_config(config: ModelConfig, context: int) -> dict[str, Any]:
    """Return the ``config.json`` of a model trained with ``context`` tokens, as JSON values.

    Special tokens are null: their ids belong to the tokenizer, and DeepSeek's defaults would stop at token 1.
    """
    shape = {f.name: getattr(config, f.name) for f in fields(config) if f.name not in _YARN and f.name != "rope_theta"}
    return {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3",
        **shape,  # q_lora_rank is null, not 0: for a 0 readers would build an empty projection
        "num_key_value_heads": config.num_attention_heads,
        "max_position_embeddings": context,
        # transformers 5 reads rope_parameters, other readers the plain key and rope_scaling
        "rope_theta": config.rope_theta,
        **_rope_tables(config),
        "rope_interleave": True,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        # Every layer is dense, but readers require integers for the experts.
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
    """Return the model config of a parsed ``config.json``.

    Raises UserError where a key is missing or the model is not supported here (experts, biases, non-interleaved rope,
    rope scaling other than YaRN).
    """
    for key in ("model_type", "first_k_dense_replace"):
        _require(raw, key)
    _refuse_unless(raw, "model_type", "deepseek_v3")
    _refuse_unless(raw, "hidden_act", "silu")
    _refuse_unless(raw, "attention_bias", False)
    _refuse_unless(raw, "rope_interleave", True)
    _refuse_unless(raw, "partial_rotary_factor", 1.0)
    if raw.get("head_dim") is not None:  # the width that transformers rotates
        _refuse_unless(raw, "head_dim", raw.get("qk_rope_head_dim"))
    values: dict[str, Any] = {"rope_theta": _theta(raw), **_yarn(raw)}
    for field in fields(ModelConfig):
        if field.name not in (*values, *_YARN):
            if field.name not in _DEFAULTS:
                _require(raw, field.name)
            value = raw.get(field.name, _DEFAULTS.get(field.name))
            values[field.name] = _checked(field.name, field, value)
    config = ModelConfig(**values)
    if conflict := config.conflict():
        key, reason = conflict
        for ours, theirs in _YARN.items():  # the reason names fields of ModelConfig
            reason = reason.replace(ours, theirs)
        raise UserError(f"config.json: {_YARN.get(key, key)}: {reason}")
    dense = raw["first_k_dense_replace"]
    if not isinstance(dense, int) or dense < config.num_hidden_layers:
        raise UserError(
            "config.json: first_k_dense_replace is below num_hidden_layers; layers with experts are not supported"
        )
    if raw.get("num_key_value_heads") not in (None, config.num_attention_heads):
        raise UserError("config.json: num_key_value_heads differs from num_attention_heads, which is not supported")
    return config


def _require(raw: Mapping[str, Any], key: str) -> None:
    if key not in raw:
        raise UserError(f"config.json: {key} is missing; programs do not agree on a default, so add it")


def _refuse_unless(raw: Mapping[str, Any], key: str, wanted: object) -> None:
    if raw.get(key, wanted) != wanted:
        raise UserError(f"config.json: {key}: {brief(raw[key])} is not supported, only {wanted!r}")


def _rope_tables(config: ModelConfig) -> dict[str, Any]:
    if config.yarn_factor == 1:
        return {"rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta}}
    yarn = {theirs: getattr(config, ours) for ours, theirs in _YARN.items()}
    # Older readers know the type as "type".
    table = {"rope_type": "yarn", "type": "yarn", "rope_theta": config.rope_theta, **yarn}
    return {name: dict(table) for name in _ROPE_TABLES}


def _given_tables(raw: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    tables = {name: raw[name] for name in _ROPE_TABLES if raw.get(name)}
    for name, table in tables.items():
        if not isinstance(table, Mapping):
            raise UserError(f"config.json: {name}: {brief(table)} is not a table")
    return tables


def _theta(raw: Mapping[str, Any]) -> float:
    given = [place["rope_theta"] for place in (raw, *_given_tables(raw).values()) if "rope_theta" in place]
    named = {_checked("rope_theta", _FIELDS["rope_theta"], theta) for theta in given if theta is not None}
    if len(named) > 1:
        raise UserError(
            f"config.json: rope_theta and rope_parameters.rope_theta differ: {sorted(named)}; make them equal"
        )
    return named.pop() if named else _DEFAULT_THETA


def _yarn(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the yarn fields of ModelConfig; none where rope is not scaled."""
    read = [_yarn_table(name, table) for name, table in _given_tables(raw).items()]
    if len(read) == 2 and read[0] != read[1]:
        raise UserError("config.json: rope_scaling and rope_parameters differ; programs read one or the other")
    return read[0] if read else {}


def _yarn_table(name: str, table: Mapping[str, Any]) -> dict[str, Any]:
    kind = table.get("rope_type", table.get("type", "default"))
    if kind not in ("default", "yarn"):
        raise UserError(f"config.json: rope of type {brief(kind)} is not supported, only 'default' and 'yarn'")
    given = {key: value for key, value in table.items() if value is not None}
    unknown = given.keys() - {"rope_type", "type", "rope_theta", *_YARN.values()}
    if unknown:
        raise UserError(f"config.json: {name}: {brief_key(min(unknown))} is not supported")
    if kind == "default":
        return {}
    needed = ["factor", "original_max_position_embeddings", *(["mscale"] if given.get("mscale_all_dim") else [])]
    for key in needed:
        if key not in given:
            raise UserError(f"config.json: {name}: {key} is missing; programs do not agree on a default")
    return {
        ours: _checked(f"{name}: {theirs}", _FIELDS[ours], given.get(theirs, _YARN_DEFAULTS.get(theirs)))
        for ours, theirs in _YARN.items()
    }


def _checked(key: str, field: Field[Any], value: Any) -> Any:
    """Return ``value``. Raises UserError where ``field`` of ModelConfig does not allow it."""
    kind = str(field.type)
    if kind == "bool":
        if not isinstance(value, bool):
            raise UserError(f"config.json: {key}: {brief(value)} is not true or false")
        return value
    if value is None and field.name == "q_lora_rank":
        return None
    whole = kind.startswith("int")
    low, high = field.metadata.get("range", (1, 1 << 24) if whole else (1e-12, 1e12))
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not low <= value <= high:
        hint = "; write null for queries without a latent" if field.name == "q_lora_rank" else ""
        raise UserError(
            f"config.json: {key}: {brief(value)} is not a {'whole ' * whole}number from {low} to {high}{hint}"
        )
    return value if whole else float(value)
