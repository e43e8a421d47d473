"""Builds the records with which an attempt begins."""

from __future__ import annotations

from collections.abc import Mapping

from engine.events.types import Alert, Data, Start
from engine.execution.peak_flops import Peak
from engine.preflight import slow_kernels
from engine.train.backends.backend import Backend
from profiles.spec import RunSpec


def start_record(
    step: int, backend: Backend, spec: RunSpec, device: str, peak: Peak, versions: Mapping[str, str], data: Data
) -> Start:
    """Return the record of an attempt that goes on after ``step``, reading ``data``.

    ``device`` is the name of its devices, ``peak`` that of one.
    """
    return Start(
        resumed_from=step or None,
        plan={**backend.plan},
        params=spec.model.config.params,
        device=device,
        peak_flop_s=peak.flops_per_s,
        peak_source=peak.source,
        versions={**versions},
        data=data,
    )


def start_alerts(spec: RunSpec, backend: Backend, miscounts: list[str]) -> list[Alert]:
    """Return the alerts of an attempt's start: which parts of the model are slow, and ``miscounts`` of the data."""
    slow = slow_kernels(spec.model.config, backend.device, backend.plan["attention"])
    return [*(Alert(what="slow", text=text) for text in slow), *(Alert(what="data", text=text) for text in miscounts)]
