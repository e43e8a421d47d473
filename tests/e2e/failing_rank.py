"""Runs one rank of a run in which one rank runs out of memory once. torchrun starts it.

``failing_rank.py RUN ATTEMPT RANK METHOD FRACTION``: rank RANK fails in its third call of METHOD, after FRACTION of the
operations of its second call. Every rank saves the sequences of each step as RUN/batch-RANK-STEP.npy.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.events.run_dir import RunDir
from engine.train.backends import build
from engine.train.backends.ranks import Ranks
from engine.train.main import run_trainer, run_worker
from profiles.spec import RunSpec
from tests.unit.train.tiny_runs import OomAtOperation

FAILING_CALL = 3

torch.set_num_threads(1)
folder, attempt, failing_rank, method, fraction = Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]
rank = os.environ["RANK"]
failed = folder / "failed"


class FailingBackend:
    """A backend that saves its batches and, on the failing rank, raises out-of-memory once."""

    def __init__(self, backend: Any) -> None:
        vars(self).update(_backend=backend, _calls=0, _operations=0, _micro_batches=[])

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._backend, name, value)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._backend, name)
        return self._observed(name, found) if name in ("accumulate", "optimizer_step", "evaluate") else found

    def _observed(self, name: str, call: Any) -> Any:
        def observed(*args: Any) -> Any:
            result = self._call_with_oom(call, args) if name == method and rank == failing_rank else call(*args)
            if name == "accumulate":
                self._micro_batches.append(args[0])
            elif name == "optimizer_step":
                step = int(self._backend.state_dict()["optimizer"]["step"])
                np.save(folder / f"batch-{rank}-{step}.npy", np.concatenate(self._micro_batches))
                self._micro_batches.clear()
            return result

        return observed

    def _call_with_oom(self, call: Any, args: Any) -> Any:
        vars(self)["_calls"] += 1
        fails = self._calls == FAILING_CALL and not failed.exists()
        oom = OomAtOperation(max(1, round(float(fraction) * self._operations)) if fails else 0)
        if fails:
            failed.touch()
        try:
            with oom:
                return call(*args)
        finally:
            vars(self)["_operations"] = oom.count


def build_backend(spec: RunSpec, ranks: Ranks, document_end: int | None) -> Any:
    return FailingBackend(real_build_backend(spec, ranks, document_end))


real_build_backend = build.build_backend
vars(build)["build_backend"] = build_backend
sys.exit(run_trainer(RunDir(folder), attempt) if rank == "0" else run_worker())
