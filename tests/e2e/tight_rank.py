"""One rank of a run, of which one runs out of memory once: started by torchrun, for test_ranks_out_of_memory.py.

``tight_rank.py RUN ATTEMPT RANK METHOD SHARE``: rank RANK fails in its third call of METHOD, at SHARE of the operations
that the second one was. Every rank leaves the sequences of each step it has taken as RUN/fed-RANK-STEP.npy.
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
from tests.unit.train.whole_runs import Failing

WHICH = 3

torch.set_num_threads(1)
folder, attempt, tight, method, share = Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]
rank = os.environ["RANK"]
failed = folder / "failed"


class TightBackend:
    """A backend of this rank, told which step it is at by the number of those that were taken."""

    def __init__(self, backend: Any) -> None:
        vars(self).update(_backend=backend, _calls=0, _operations=0, _rows=[])

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._backend, name, value)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._backend, name)
        return self._watched(name, found) if name in ("accumulate", "optimizer_step", "evaluate") else found

    def _watched(self, name: str, call: Any) -> Any:
        def watched(*args: Any) -> Any:
            result = self._failing(call, args) if name == method and rank == tight else call(*args)
            if name == "accumulate":
                self._rows.append(args[0])
            elif name == "optimizer_step":
                step = int(self._backend.state_dict()["optimizer"]["step"])
                np.save(folder / f"fed-{rank}-{step}.npy", np.concatenate(self._rows))
                self._rows.clear()
            return result

        return watched

    def _failing(self, call: Any, args: Any) -> Any:
        vars(self)["_calls"] += 1
        fails = self._calls == WHICH and not failed.exists()
        failing = Failing(max(1, round(float(share) * self._operations)) if fails else 0)
        if fails:
            failed.touch()
        try:
            with failing:
                return call(*args)
        finally:
            vars(self)["_operations"] = failing.count


def build_backend(spec: RunSpec, ranks: Ranks) -> Any:
    return TightBackend(real(spec, ranks))


real = build.build_backend
vars(build)["build_backend"] = build_backend
sys.exit(run_trainer(RunDir(folder), attempt) if rank == "0" else run_worker())
