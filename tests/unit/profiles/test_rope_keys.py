"""The YaRN keys: off by default, and refused if they contradict each other."""

from __future__ import annotations

import pytest

from profiles.errors import SpecError
from profiles.registry import load
from profiles.spec import RunSpec

LONG = ("batch.context=16384", "yarn_factor=8", "yarn_original_context=2048")


def test_rope_is_not_scaled_by_default() -> None:
    assert {load(name).model.config.yarn_factor for name in ("cpu_demo", "pretrain_5080", "longctx_5090")} == {1.0}


def test_a_long_context_stage_is_a_profile_with_overrides() -> None:
    spec = load("pretrain_5080", LONG)
    assert (spec.model.config.yarn_factor, spec.model.config.yarn_original_context) == (8.0, 2048)
    assert RunSpec.from_dict(spec.to_dict()) == spec


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["yarn_factor=4"], "model.yarn_original_context: is missing; yarn_factor = 4 needs it"),
        ([*LONG, "yarn_beta_fast=1"], "model.yarn_beta_fast: 1 is not above beta_slow = 1"),
        ([*LONG, "rope_theta=1"], "model.yarn_factor: 8 needs a rope_theta above 1, not 1"),
        ([*LONG, "yarn_mscale=0.7", "yarn_mscale_all_dim=0"], "model.yarn_mscale: 0.7 without yarn_mscale_all_dim"),
        (["yarn_factor=0.5"], "model.yarn_factor: 0.5 is not in 1..1e+06"),
        (["yarn_factor=nan"], "model.yarn_factor: nan is not in 1..1e+06"),
        (["yarn_original_context=0"], "model.yarn_original_context: 0 is not in 1..16777216"),
        (["yarn_factr=4"], "did you mean model.yarn_factor?"),
    ],
)
def test_contradictions_are_refused_in_one_line(overrides: list[str], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        load("pretrain_5080", overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
