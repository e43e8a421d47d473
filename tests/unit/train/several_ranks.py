"""Trains on several ranks, started by torchrun, and prints losses and weights as JSON, to be compared with one rank's.

Each argument is a run: its overrides, such as ``backend=torch,train.precision=bf16_sr``.
"""

import json
import sys

import torch

from engine.train.backends.build import build_backend
from engine.train.backends.ranks import join_ranks
from tests.unit.train.test_deepspeed_backend import nano, train

torch.set_num_threads(1)
ranks = join_ranks()
results = {}
for overrides in sys.argv[1:]:
    spec = nano(*overrides.split(","), f"gpus_per_node={ranks.size}", "micro=1", "optim.ema=0.9")
    for accum in (1, 3):
        backend = build_backend(spec, ranks)
        losses = [loss for loss, _ in train(backend, range(10), accum, ranks=ranks)]
        results[f"{overrides} {accum}"] = {"losses": losses, "host_states": backend.host_states()}
    state = backend.state_dict()
    results[f"{overrides} weights"] = {
        f"{part}/{name}": float(tensor.double().sum())
        for part in ("model", "ema")
        for name, tensor in state.get(part, {}).items()
    }
if ranks.rank == 0:
    print(json.dumps(results))
ranks.close()
