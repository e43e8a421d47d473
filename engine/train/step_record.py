"""Builds the record of a finished step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.events.types import Step
from engine.execution.peak_flops import Peak
from engine.train.step_runner import Done
from model.flops import flops_per_token
from profiles.spec import RunSpec


def step_record(
    step: int,
    done: Done,
    spec: RunSpec,
    peak: Peak,
    device_peak: int | None,
    host_states: int,
    unified: Mapping[str, Any],
) -> Step:
    """Return the record of ``step``: what the step runner measured, and bytes of memory that the backend reported.

    ``peak`` is that of each rank's device. ``device_peak`` is that of device memory, ``host_states`` are optimizer
    states in host memory, ``unified`` holds the fields of a memory that device and host share.
    """
    tok_s = spec.tokens_per_step / done.step_s
    flop_s = tok_s * flops_per_token(spec.model.config, spec.batch.context)
    return Step(
        step=step,
        loss=done.loss,
        tok_s=tok_s,
        lr=done.lr,
        grad_norm=done.grad_norm,
        attn_logit=done.attn_logit,
        step_s=done.step_s,
        data_s=done.data_s,
        data_share=done.data_s / done.step_s,
        tokens_day=86400 * tok_s,
        tokens=done.cursor.tokens,
        micro=spec.batch.micro,
        accum=spec.accum,
        context=spec.batch.context,
        device_peak=device_peak,
        host_states=host_states,
        mfu=flop_s / (spec.ranks * peak.flops_per_s),
        **unified,
    )
