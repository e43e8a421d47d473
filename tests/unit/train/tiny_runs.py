"""Provides runs of a very small model within the test's process, and raises out-of-memory errors in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from engine.events.types import Command, Edit, Event, Oom, Rewind, Start
from engine.train.backends.build import build_backend
from engine.train.backends.ranks import SingleRank
from engine.train.reporter import SilentReporter
from profiles.spec import RunSpec
from tests.events import all_fields

torch.set_num_threads(1)
NANO = (
    *("model.hidden_size=32", "model.num_hidden_layers=1", "model.num_attention_heads=2", "model.vocab_size=256"),
    *("model.qk_nope_head_dim=8", "model.qk_rope_head_dim=8", "model.v_head_dim=16", "model.kv_lora_rank=16"),
    *("model.intermediate_size=64", "context=32", "sequences=8", "micro=4", "deterministic=true", "precision=fp32"),
    *("val_sequences=8", "warmup=2", "optim.lr=3e-3", "optim.name=adamw"),
)
MakeSpec = Callable[..., RunSpec]  # the fixture ``nano``: settings to a spec


def write_shards(root: Path) -> None:
    """Write headerless uint16 shards of a random walk, which a small model can learn."""
    for split, count in (("train", 20_000), ("val", 2_000)):
        path = root / "phase1" / split / f"phase1-{split}-000.bin"
        path.parent.mkdir(parents=True)
        (np.cumsum(np.random.default_rng(1).integers(0, 4, count)) % 256).astype("<u2").tofile(path)


class RecordingReporter(SilentReporter):
    """Keeps the records of several attempts, and sends the commands that ``respond`` returns for a record."""

    def __init__(self, respond: Callable[[dict[str, Any]], list[Command]] = lambda record: []) -> None:
        self.events: list[Event] = []
        self._respond = respond
        self._pending: list[Command] = []

    def record(self, event: Event) -> None:
        self.events.append(event)
        self._pending += self._respond(all_fields(event))

    @property
    def records(self) -> list[dict[str, Any]]:
        return [all_fields(event) for event in self.events]

    def commands(self) -> list[Command]:
        pending, self._pending = self._pending, []
        return pending

    def events_to_replay(self) -> list[Event]:
        return [event for event in self.events if isinstance(event, Edit | Oom | Rewind | Start)]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [record for record in self.records if record["kind"] == kind]

    def losses(self) -> dict[int, float]:
        return {record["step"]: record["loss"] for record in self.of("step")}


class OomAtOperation(TorchDispatchMode):
    """Raises CUDA's out-of-memory error at torch operation number ``at``; ``count`` is how many ran so far."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        if self.count == self.at:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 15.47 GiB")
        return func(*args, **(kwargs or {}))


def count_operations(spec: RunSpec, method: str) -> int:
    """Return how many torch operations one call of the backend's ``method`` runs."""
    backend = build_backend(spec, SingleRank())
    batch = np.cumsum(np.random.default_rng(0).integers(0, 4, (4, 33)), axis=1) % 256
    counter = OomAtOperation(0)
    if method == "optimizer_step":
        backend.accumulate(batch, 8 * 32, last=True)
        backend.window_totals()
    arguments = {"accumulate": (batch, 8 * 32, True), "evaluate": (batch,), "optimizer_step": (1e-3, 1.0)}[method]
    with counter:
        getattr(backend, method)(*arguments)
    return counter.count
