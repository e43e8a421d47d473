"""Trains with plain torch on one device per rank, CPU or CUDA.

``train.precision``: "fp32"; "bf16", fp32 parameters with bf16 activations; "bf16_sr", bf16 matrices without fp32
masters, updated with stochastic rounding.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.train.backends.backend import Batch, State
from engine.train.backends.finished_work import FinishedWork
from engine.train.backends.gradient_sums import gradient_sums
from engine.train.backends.host_offload import HostOffload, empty_cache, memory_in_use
from engine.train.backends.ranks import Ranks, SingleRank
from engine.train.backends.torch_model import TorchModel
from engine.train.optim.optimizer import build_optimizer
from engine.train.optim.precision import gradient_norm, store_matrices_in_bf16, sum_gradients_in_fp32
from engine.train.optim.weight_average import WeightAverage, host_zeros
from engine.train.phases import BACKWARD, FORWARD, IDLE, OPTIMIZER, REDUCE, VALIDATION, Phases
from model.transformer import MLATransformer
from profiles.spec import RunSpec


class TorchBackend:
    """See ``backend.Backend``. Every rank holds the whole model; gradients are summed over ranks once a step."""

    can_retry_step = True

    def __init__(self, spec: RunSpec, ranks: Ranks | None = None, document_end: int | None = None) -> None:
        self._ranks = ranks or SingleRank()
        self._torch_model = TorchModel(spec, document_end)
        self.model, self.device = self._torch_model.module, self._torch_model.device
        self._parameters = self._torch_model.parameters
        if self._torch_model.plan.precision == "bf16_sr":
            torch.manual_seed(spec.train.seed)  # stochastic rounding draws the same numbers on every rank
            store_matrices_in_bf16(self.model)
        self._optimizer = build_optimizer(spec, self._parameters, compiled=self._torch_model.plan.compiled)
        averages = spec.optim.ema and self._ranks.rank == 0
        self._average = WeightAverage(spec.optim.ema, host_zeros(self._parameters)) if averages else None
        self._gradients = gradient_sums(self.model, self._torch_model.loss, self._ranks)
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self._norm: Tensor | None = None
        self._window_begun = False
        self._work = FinishedWork(self.device)
        self._host_offload = HostOffload()
        self.plan = {
            "backend": "torch",
            **self._torch_model.labels(),
            "optimizer": self._optimizer.label,
            "strategy": "states8bit" if spec.memory.strategy == "states8bit" else "device",
        }
        self.versions = {"torch": torch.__version__, "numpy": np.__version__}
        self.phases = Phases()

    def accumulate(self, batch: Batch, step_tokens: int, last: bool) -> None:
        self.phases.enter(FORWARD)
        inputs_BT, targets_BT = self._torch_model.to_device(batch)
        if not self._window_begun:
            sum_gradients_in_fp32(self._parameters.values(), whole_step=last and self._ranks.size == 1)
            self._window_begun = True
        loss = self._gradients.loss(inputs_BT, targets_BT, last) / step_tokens
        self.phases.enter(BACKWARD)
        loss.backward()  # type: ignore[no-untyped-call]
        self._loss_sum += loss.detach()
        self._work.launched()

    def finished(self) -> int:
        return self._work.count()

    def window_totals(self) -> tuple[float, float]:
        self.phases.enter(REDUCE)
        self._ranks.all_reduce(self._loss_sum)
        self._gradients.finish()
        self._norm = gradient_norm([p.grad for p in self._parameters.values() if p.grad is not None])
        return float(self._loss_sum), float(self._norm)

    def optimizer_step(self, lr: float, clip: float) -> None:
        self.phases.enter(OPTIMIZER)
        if clip and self._norm is not None and self._norm > clip:  # below it torch would multiply them by 1
            torch.nn.utils.clip_grads_with_norm_(self._parameters.values(), clip, self._norm)
        self._optimizer.step(lr)
        if self._average:
            self._average.add_step(self._parameters)
        self.discard_window()
        self.phases.enter(IDLE)

    def discard_window(self) -> None:
        self.model.zero_grad(set_to_none=True)
        self._loss_sum.zero_()
        self._norm = None
        self._window_begun = False
        self._work.clear()

    def evaluate(self, batch: Batch) -> float:
        self.phases.enter(VALIDATION)
        loss = self._torch_model.evaluate(batch)
        self.phases.enter(IDLE)
        return loss

    def torch_model(self) -> MLATransformer:
        return self.model

    def device_peak(self) -> int | None:
        return self._torch_model.peak()

    def capacity(self) -> int:
        return self._torch_model.capacity()

    def host_states(self) -> int:
        return 0  # everything is on the device

    def unified_memory(self) -> dict[str, int]:
        return {}

    def empty_cache(self) -> None:
        self._torch_model.empty_cache()

    def allocator_retries(self) -> int:
        return self._torch_model.allocator_retries()

    def offload_for_pause(self) -> int:
        before = memory_in_use(self.device)
        self._host_offload.offload((*self._parameters.values(), *self._optimizer.state_dict().values()), "cuda")
        empty_cache(self.device)
        return max(0, before - memory_in_use(self.device))

    def restore_after_pause(self) -> None:
        self._host_offload.restore()

    def state_dict(self) -> State:
        optimizer = self._optimizer.state_dict() | self._torch_model.rng_state()
        state = {"model": {name: p.detach() for name, p in self._parameters.items()}, "optimizer": optimizer}
        if self._average and self._average.exists:
            optimizer |= self._average.step_tensor()
            state["ema"] = self._average.tensors
        return state

    def load_state_dict(self, state: State) -> None:
        self.load_weights(state["model"])
        self._torch_model.restore_rng_state(state["optimizer"])
        self._optimizer.load_state_dict(state["optimizer"])
        if self._average and self._average.load_steps(state["optimizer"]):
            for name, average in self._average.tensors.items():
                average.copy_(state["ema"][name])

    @torch.no_grad()
    def load_weights(self, weights: dict[str, Any]) -> None:
        self._torch_model.check(weights)
        for name, parameter in self._parameters.items():
            parameter.copy_(weights[name])
