"""Plain torch on one device: CPU or CUDA.

``train.precision``: "fp32"; "bf16", fp32 parameters under a bf16 stream; "bf16_sr", bf16 matrices without fp32
masters, rounded stochastically.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.train.backend import Batch
from engine.train.optim.optimizer import build_optimizer
from engine.train.optim.precision import gradient_norm, store_matrices_in_bf16, sum_gradients_in_fp32
from engine.train.paths import resolve_paths
from model.loss import resolve_loss
from model.transformer import build
from profiles.errors import UserError
from profiles.spec import RunSpec

# Each batch shape (a live edit, the rest of a validation set) and each of training and validation is compiled by
# itself; torch would give up after 8 and go on eagerly.
MOST_COMPILED_FORMS = 64


class TorchBackend:
    """See ``engine.train.backend.Backend``. Every "auto" is resolved here, once."""

    def __init__(self, spec: RunSpec) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        if spec.train.deterministic:
            torch.use_deterministic_algorithms(True)
        paths = resolve_paths(spec, self.device)
        self.model = build(
            spec.model.config,
            spec.train.seed,
            checkpointing=paths.checkpointing,
            attention=paths.attention,
            stream=paths.stream,
            device=self.device,
        )
        if paths.precision == "bf16_sr":
            torch.manual_seed(spec.train.seed)  # the lots that rounding draws
            store_matrices_in_bf16(self.model)
        if paths.compiled:
            torch._dynamo.config.recompile_limit = MOST_COMPILED_FORMS
            for block in self.model.model.layers:
                block.compile(dynamic=False)
        self._loss = resolve_loss(paths.loss, compiled=paths.compiled)
        self._parameters = dict(self.model.named_parameters())
        self._optimizer = build_optimizer(spec, self._parameters, compiled=paths.compiled)
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self._norm: Tensor | None = None
        self.paths = {
            "backend": "torch",
            "precision": paths.precision,
            "attention": paths.attention,
            "loss": paths.loss,
            "checkpointing": paths.checkpointing,
            "optimizer": self._optimizer.label,
            "compile": "blocks and loss" if paths.compiled else "off",
            "strategy": "states8bit" if spec.memory.strategy == "states8bit" else "device",
        }
        self.versions = {"torch": torch.__version__, "numpy": np.__version__}
        self.lap: Callable[[str], None] = lambda part: None

    def accumulate(self, batch: Batch, step_tokens: int) -> None:
        inputs_BT, targets_BT = self._to_device(batch)
        sum_gradients_in_fp32(self._parameters.values(), whole_step=inputs_BT.numel() == step_tokens)
        loss = self._loss(self.model, inputs_BT, targets_BT) / step_tokens
        self.lap("forward")
        loss.backward()  # type: ignore[no-untyped-call]
        self.lap("backward")
        self._loss_sum += loss.detach()

    def totals(self) -> tuple[float, float]:
        gradients = [p.grad for p in self._parameters.values() if p.grad is not None]
        self._norm = gradient_norm(gradients)
        return float(self._loss_sum), float(self._norm)

    def apply(self, lr: float, clip: float) -> None:
        if clip and self._norm is not None and self._norm > clip:  # below it they would be multiplied by 1
            torch.nn.utils.clip_grads_with_norm_(self._parameters.values(), clip, self._norm)
        self._optimizer.step(lr)
        self.discard()
        self.lap("optimizer")

    def discard(self) -> None:
        self.model.zero_grad(set_to_none=True)
        self._loss_sum.zero_()
        self._norm = None

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> float:
        inputs_BT, targets_BT = self._to_device(batch)
        return float(self._loss(self.model, inputs_BT, targets_BT))

    def device_peak(self) -> int | None:
        if self.device == "cpu":
            return None
        peak = torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        return peak

    def host_states(self) -> int:
        return 0  # everything is on the device

    def state(self) -> dict[str, dict[str, Any]]:
        rng = {"rng/cpu": torch.get_rng_state()}
        if self.device == "cuda":
            rng["rng/cuda"] = torch.cuda.get_rng_state()
        return {
            "model": {name: p.detach() for name, p in self._parameters.items()},
            "optimizer": self._optimizer.state() | rng,
        }

    def restore(self, state: dict[str, dict[str, Any]]) -> None:
        self.restore_weights(state["model"])
        optimizer = state["optimizer"]
        torch.set_rng_state(optimizer["rng/cpu"])
        if "rng/cuda" in optimizer and self.device == "cuda":
            torch.cuda.set_rng_state(optimizer["rng/cuda"])
        self._optimizer.restore(optimizer)

    def restore_weights(self, weights: dict[str, Any]) -> None:
        for name, parameter in self._parameters.items():
            if name not in weights or weights[name].shape != parameter.shape:
                found = tuple(weights[name].shape) if name in weights else "nothing"
                raise UserError(
                    f"checkpoint: {name} should be {tuple(parameter.shape)} and is {found};"
                    " take the model table of the run that wrote it"
                )
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(weights[name])

    def _to_device(self, batch: Batch) -> tuple[Tensor, Tensor]:
        tokens = torch.from_numpy(batch)
        if self.device == "cuda":
            tokens = tokens.pin_memory().to(self.device, non_blocking=True)
        return tokens[:, :-1], tokens[:, 1:]
