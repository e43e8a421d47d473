"""The run spec: valid values, error messages, and JSON."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiles.errors import SpecError
from profiles.model_config import NAMED_MODELS
from profiles.spec import TABLES, RunSpec, check_table, check_value, known_keys


def build(**flat: Any) -> RunSpec:
    return RunSpec.build("x.toml", "x", "", {key.replace("__", "."): value for key, value in flat.items()})


# Names that are refused are in test_names.py.
NAMES = st.characters(codec="utf-8", categories=("L", "N"))


def values_of(table: str, field: Any) -> st.SearchStrategy[Any]:
    if "choices" in field.metadata:
        return st.sampled_from(field.metadata["choices"])
    if field.type == "bool":
        return st.booleans()
    if field.type == "str":
        return st.text(NAMES, min_size=1, max_size=20)
    if "each" in field.metadata:  # all of them: a choice that the list lacks is refused
        return st.just(field.metadata["each"])
    if field.name == "sources":
        return st.dictionaries(st.text(NAMES, min_size=1, max_size=20), st.floats(1e-6, 1e6), min_size=1, max_size=4)
    if field.name in ("sample_prompts", "eval_tasks"):
        return st.lists(st.text(st.characters(codec="utf-8"), max_size=20), min_size=1, max_size=16).map(tuple)
    low, high = field.metadata["range"]
    return st.integers(low, high) if field.type == "int" else st.floats(low, high)


@st.composite
def specs(draw: st.DrawFn) -> RunSpec:
    """Any valid spec: every field over its declared range, with consistent batch settings and learning rates."""
    flat: dict[str, Any] = {"model.name": draw(st.sampled_from([*NAMED_MODELS, "my own"]))}
    if flat["model.name"] == "my own":
        shape = {f.name: getattr(NAMED_MODELS["mla-tiny"], f.name) for f in fields(NAMED_MODELS["mla-tiny"])}
        shape["q_lora_rank"] = draw(st.none() | st.integers(1, 4096))
        shape["hidden_size"] = draw(st.integers(1, 1 << 24))
        shape["tie_word_embeddings"] = draw(st.booleans())
        flat |= {f"model.{name}": value for name, value in shape.items()}
    for table, cls in TABLES.items():
        for field in fields(cls):
            if draw(st.booleans()):
                flat[f"{table}.{field.name}"] = draw(values_of(table, field))
    if "data.sources" in flat:
        flat.pop("data.phase", None)
    if flat.get("optim.name") == "muon" and flat.get("memory.strategy") == "states8bit":
        del flat["memory.strategy"]
    if flat.get("optim.name") != "muon":
        flat.pop("optim.muon_lr", None)
    lr = draw(st.floats(0, 10))
    flat |= {"optim.lr": lr, "optim.final_lr": draw(st.floats(0, lr)), "optim.decay": draw(st.floats(0, 0.99))}
    flat |= {"launch.nodes": draw(st.integers(1, 8)), "launch.gpus_per_node": draw(st.integers(1, 8))}
    flat["batch.micro"] = draw(st.integers(1, 64))
    flat.pop("batch.sequences", None)
    flat["batch.accum"] = draw(st.integers(1, 256))
    if draw(st.booleans()):
        flat["batch.sequences"] = flat.pop("batch.accum") * 840
        flat["batch.micro"] = "auto"
        flat |= {"launch.nodes": 1}
    return RunSpec.build("any.toml", draw(st.text(NAMES, min_size=1)), draw(st.text(max_size=20)), flat)


@settings(deadline=None)
@given(specs())
def test_a_spec_survives_json(spec: RunSpec) -> None:
    assert RunSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@settings(deadline=None)
@given(specs())
def test_sequences_are_accum_times_micro_times_ranks(spec: RunSpec) -> None:
    assert spec.accum * spec.batch.micro * spec.ranks == spec.batch.sequences
    assert spec.tokens_per_step == spec.batch.sequences * spec.batch.context


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("batch.micro", 0, "pretrain_5080.toml: batch.micro: 0 is not in 1..4096"),
        ("batch.micro", 4097, "pretrain_5080.toml: batch.micro: 4097 is not in 1..4096"),
        ("batch.context", 0, "pretrain_5080.toml: batch.context: 0 is not in 1..1048576"),
        ("train.seed", 2**31, "pretrain_5080.toml: train.seed: 2147483648 is not in 0..2147483647"),
        ("batch.micro", 2.5, "pretrain_5080.toml: batch.micro: 2.5 is not a whole number"),
        ("batch.micro", "4", "pretrain_5080.toml: batch.micro: '4' is not a number"),
        ("batch.micro", True, "pretrain_5080.toml: batch.micro: True is not a number"),
        ("batch.micro", float("nan"), "pretrain_5080.toml: batch.micro: nan is not a whole number"),
        ("batch.micro", float("inf"), "pretrain_5080.toml: batch.micro: inf is not a whole number"),
        ("optim.lr", float("nan"), "pretrain_5080.toml: optim.lr: nan is not in 0..10"),
        ("optim.lr", float("-inf"), "pretrain_5080.toml: optim.lr: -inf is not in 0..10"),
        ("optim.lr", -0.1, "pretrain_5080.toml: optim.lr: -0.1 is not in 0..10"),
        ("memory.oom", "never", "pretrain_5080.toml: memory.oom: 'never' is not one of auto, ask, fail"),
        ("train.deterministic", 1, "pretrain_5080.toml: train.deterministic: 1 is not true or false"),
        ("data.phase", "", "pretrain_5080.toml: data.phase: '' is not a non-empty string"),
        ("data.phase", 7, "pretrain_5080.toml: data.phase: 7 is not a non-empty string"),
        ("model.vocab_size", 0, "pretrain_5080.toml: model.vocab_size: 0 is not in 1..16777216"),
        ("batch.mikro", 4, "pretrain_5080.toml: batch.mikro: unknown key; did you mean batch.micro?"),
        ("model.hiden_size", 4, "pretrain_5080.toml: model.hiden_size: unknown key; did you mean model.hidden_size?"),
    ],
)
def test_an_invalid_value_is_refused_with_file_key_value_and_allowed_values(key: str, value: Any, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        check_value("pretrain_5080.toml", key, value)
    assert str(caught.value) == message


@settings(deadline=None)
@given(st.sampled_from(known_keys()), st.none() | st.booleans() | st.integers() | st.floats() | st.text())
def test_any_value_of_any_key_is_accepted_or_refused_by_name(key: str, value: Any) -> None:
    try:
        check_value("f.toml", key, value)
    except SpecError as error:
        assert str(error).startswith(f"f.toml: {key}: ")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"bacth": {"micro": 4}}, "f.toml: bacth: unknown key; did you mean batch?"),
        ({"batch": 4}, "f.toml: batch: 4 is not a table; write [batch] with its keys below"),
        (
            {"batch": {"accum": 2, "sequences": 8}},
            "f.toml: batch.accum: set accum or sequences, not both; each follows from the other",
        ),
    ],
)
def test_a_malformed_profile_is_refused(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        check_table("f.toml", raw)
    assert str(caught.value) == message


def test_micro_must_divide_the_sequences_and_valid_values_are_listed() -> None:
    with pytest.raises(SpecError) as caught:
        build(batch__sequences=8, batch__micro=3)
    message = "x.toml: batch.micro: 3 does not divide the 8 sequences of a step; use 1, 2, 4, 8"
    assert str(caught.value) == message


def test_micro_times_ranks_must_divide_the_sequences() -> None:
    with pytest.raises(SpecError, match=r"batch\.micro: 4 × 4 ranks does not divide the 8 sequences.*use 1, 2$"):
        build(batch__sequences=8, batch__micro=4, launch__nodes=2, launch__gpus_per_node=2)


def test_accum_counts_sequences_over_all_ranks() -> None:
    spec = build(batch__accum=3, batch__micro=2, launch__nodes=2, launch__gpus_per_node=4)
    assert spec.batch.sequences == 48
    assert spec.accum == 3


def test_an_accum_that_gives_too_many_sequences_is_refused() -> None:
    with pytest.raises(SpecError, match=r"x\.toml: batch\.sequences: 4294967296 is not in 1\.\.1048576"):
        build(batch__accum=1 << 20, batch__micro=4096)


def test_final_lr_may_not_exceed_lr() -> None:
    with pytest.raises(SpecError, match=r"x\.toml: optim\.final_lr: 0\.001 is above optim\.lr = 0\.0001"):
        build(optim__lr=1e-4, optim__final_lr=1e-3)


def test_a_custom_model_must_be_complete() -> None:
    with pytest.raises(SpecError, match=r"model\.name: 'mine' is not one of mla-1b, mla-tiny.*num_hidden_layers"):
        build(model__name="mine", model__hidden_size=64)


def test_fields_of_a_named_model_can_be_overridden() -> None:
    spec = build(model__name="mla-tiny", model__vocab_size=300)
    assert spec.model.config.vocab_size == 300
    assert spec.model.config.hidden_size == NAMED_MODELS["mla-tiny"].hidden_size


def test_an_odd_rope_dimension_is_refused() -> None:
    with pytest.raises(SpecError, match=r"model\.qk_rope_head_dim: 31 is odd"):
        build(model__qk_rope_head_dim=31)


def test_parameter_counts_of_the_named_models() -> None:
    assert NAMED_MODELS["mla-1b"].params == 1_024_849_664
    assert NAMED_MODELS["mla-1b"].cached_values_per_token == 576
    assert 3.0e6 < NAMED_MODELS["mla-tiny"].params < 3.4e6
