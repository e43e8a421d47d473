"""Builds the record of a finished step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.events.types import Step
from engine.train.step_runner import Done
from profiles.spec import RunSpec


def step_record(
    step: int, done: Done, spec: RunSpec, peak: int | None, host_states: int, unified: Mapping[str, Any]
) -> Step:
    """Return the record of ``step``: what the step runner measured, and bytes of memory that the backend reported.

    ``peak`` is that of device memory, ``host_states`` are optimizer states in host memory, ``unified`` holds the fields
    of a memory that device and host share.
    """
    return Step(
        step=step,
        loss=done.loss,
        tok_s=spec.tokens_per_step / done.step_s,
        lr=done.lr,
        grad_norm=done.grad_norm,
        step_s=done.step_s,
        data_s=done.data_s,
        data_share=done.data_s / done.step_s,
        tokens_day=86400 * spec.tokens_per_step / done.step_s,
        tokens=done.cursor.tokens,
        micro=spec.batch.micro,
        accum=spec.accum,
        context=spec.batch.context,
        device_peak=peak,
        host_states=host_states,
        **unified,  # mfu needs the device's matmul peak, which nothing measures yet
    )
