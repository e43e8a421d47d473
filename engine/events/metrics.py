"""Lists the metrics of a run: the fields in ``types.py`` that are annotated with a ``Metric``.

The log, the history, the socket, charts, comparison, the values at the cursor and ``watch`` take them from here. To add
one, add the field and the line that measures it.
"""

from __future__ import annotations

from typing import get_type_hints

from engine.events.metric import Metric
from engine.events.types import Eval, Event, Step, Telemetry, Val

TIME, TOKENS = "t", "tokens"  # series that are axes of charts


def _metrics_of(event: type[Event], axis: str) -> tuple[Metric, ...]:
    found = []
    for field, hint in get_type_hints(event, include_extras=True).items():
        for metric in getattr(hint, "__metadata__", ()):
            if isinstance(metric, Metric):
                found.append(metric._replace(name=metric.name or field, field=field, axis=axis))
    return tuple(found)


STEP_METRICS = _metrics_of(Step, "step")
VAL_METRICS = (*_metrics_of(Val, "step"), *_metrics_of(Eval, "step"))  # measured after some steps
TELEMETRY_METRICS = _metrics_of(Telemetry, "time")
_ALL = (*STEP_METRICS, *VAL_METRICS, *TELEMETRY_METRICS)
METRICS = {metric.name: metric for metric in sorted(_ALL, key=lambda metric: metric.unit != "nats")}  # losses first

STEP_SERIES = (*(metric.name for metric in STEP_METRICS), TIME)  # the fields of a step record that are series
VAL_FIELDS = {metric.name: metric.field for metric in VAL_METRICS}  # by series
VAL_LOSS = VAL_METRICS[0].name
BY_STEP = (*STEP_SERIES, *VAL_FIELDS)
TELEMETRY_SERIES = tuple(metric.name for metric in TELEMETRY_METRICS)
SERIES = (*BY_STEP, *TELEMETRY_SERIES)
