"""Reads what the preview of a run shows: its spec with live edits, the trend of its loss, its last sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from engine.events.types import Sample
from profiles.errors import UserError
from tui.app.state.spec_diff import flat_spec, value_text

if TYPE_CHECKING:
    from engine.events.run_dir import RunDir

POINTS = 80  # of the loss
_SAMPLE_BYTES = 1 << 20  # of the end of the log in which a sample is looked for
KEYS = {
    "model.name": "model",
    "batch.micro": "micro",
    "batch.sequences": "sequences",
    "batch.context": "context",
    "optim.name": "optimizer",
    "optim.lr": "lr",
    "optim.lr_scale": "lr scale",
    "optim.schedule": "schedule",
    "data.phase": "data",
    "memory.strategy": "memory",
}


class RunPreview(NamedTuple):
    """``loss`` are (step, mean) from the first step to the last."""

    id: str
    spec: list[tuple[str, str]]
    loss: list[tuple[float, float]]
    sample: Sample | None


async def read_preview(run: RunDir) -> RunPreview:
    """Read the preview of ``run``. Raise ``UserError`` where its history cannot be read."""
    import asyncio

    from engine.runs.client import RunClient

    spec, sample = await asyncio.to_thread(lambda: (flat_spec(run), _last_sample(run)))
    answer = await RunClient(run).history(["loss"], points=POINTS)
    loss = [(one.x, one.mean) for one in answer.series.get("loss", []) if one.mean is not None]
    return RunPreview(run.id, _rows(spec), loss, sample)


def _rows(spec: dict[str, Any]) -> list[tuple[str, str]]:
    return [(title, value_text(spec[key])) for key, title in KEYS.items() if key in spec]


def _last_sample(run: RunDir) -> Sample | None:
    from engine.events.reverse_reader import events_before

    try:
        size = run.log_path.stat().st_size
        for begin, events in events_before(run.log_path, size):
            for _, event in events:
                if isinstance(event, Sample):
                    return event
            if size - begin >= _SAMPLE_BYTES:
                break
    except (OSError, UserError):
        pass
    return None
