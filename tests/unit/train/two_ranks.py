"""Trains on two ranks, started by torchrun, and prints losses and weights as JSON, to be compared with one rank's."""

import json

import torch

from engine.train.backends.build import build_backend
from engine.train.backends.ranks import join_ranks
from tests.unit.train.test_deepspeed_backend import nano, train

torch.set_num_threads(1)
ranks = join_ranks()
results = {}
for name in ("torch", "deepspeed"):
    for accum in (1, 3, 8):
        spec = nano(f"backend={name}", f"gpus_per_node={ranks.size}", "micro=1")
        backend = build_backend(spec, ranks)
        losses = [loss for loss, _ in train(backend, range(20), accum, ranks=ranks)]
        results[f"{name} {accum}"] = {"losses": losses, "host_states": backend.host_states()}
state = backend.state_dict()
if ranks.rank == 0:
    results["weights"] = {name: float(tensor.double().sum()) for name, tensor in state["model"].items()}
    print(json.dumps(results))
ranks.close()
