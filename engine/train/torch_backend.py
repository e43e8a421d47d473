"""Plain torch on one device: CPU or CUDA; fp32 parameters, matmuls in bf16 under autocast where that is chosen."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.train.backend import Batch
from model.loss import resolve_loss
from model.transformer import build
from profiles.errors import UserError
from profiles.spec import RunSpec

BETAS = (0.9, 0.95)
EPS = 1e-8
MOMENTS = ("exp_avg", "exp_avg_sq")


class TorchBackend:
    """See ``engine.train.backend.Backend``. Every "auto" is resolved here, once."""

    def __init__(self, spec: RunSpec) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        if spec.train.deterministic:
            torch.use_deterministic_algorithms(True)
        precision = spec.train.precision
        if precision == "auto":
            precision = "bf16" if self.device == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
        checkpointing = "none" if spec.memory.checkpointing == "auto" else spec.memory.checkpointing
        self._autocast = (
            torch.autocast(self.device, torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()
        )
        self.model = build(
            spec.model.config,
            spec.train.seed,
            checkpointing="full" if checkpointing == "full" else "none",
            device=self.device,
        )
        compiled = spec.train.compile == "on"
        if compiled:
            for block in self.model.model.layers:
                block.compile()
        self._loss = resolve_loss("plain" if spec.memory.loss == "plain" else "fused")
        self._parameters = dict(self.model.named_parameters())
        self._optimizer = _adamw(self._parameters, spec.optim.weight_decay)
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self._norm: Tensor | None = None
        self.paths = {
            "backend": "torch",
            "precision": precision,
            "attention": "sdpa",
            "loss": spec.memory.loss,
            "checkpointing": checkpointing,
            "optimizer": "adamw fused",
            "compile": "blocks" if compiled else "off",
            "strategy": "device",
        }
        self.versions = {"torch": torch.__version__, "numpy": np.__version__}

    def accumulate(self, batch: Batch, step_tokens: int) -> None:
        inputs_BT, targets_BT = self._to_device(batch)
        with self._autocast:
            loss = self._loss(self.model, inputs_BT, targets_BT) / step_tokens
        loss.backward()  # type: ignore[no-untyped-call]
        self._loss_sum += loss.detach()

    def totals(self) -> tuple[float, float]:
        gradients = [p.grad for p in self._parameters.values() if p.grad is not None]
        self._norm = torch.nn.utils.get_total_norm(gradients)
        return float(self._loss_sum), float(self._norm)

    def apply(self, lr: float, clip: float) -> None:
        if clip and self._norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self._parameters.values(), clip, self._norm)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._optimizer.step()
        self.discard()

    def discard(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        self._loss_sum.zero_()
        self._norm = None

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> float:
        inputs_BT, targets_BT = self._to_device(batch)
        with self._autocast:
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
        moments = {
            f"{moment}/{name}": self._optimizer.state[parameter][moment]
            for name, parameter in self._parameters.items()
            for moment in MOMENTS
            if parameter in self._optimizer.state
        }
        first = next(iter(self._optimizer.state.values()), None)  # all parameters step together: one count is enough
        step = {"step": first["step"].detach().reshape(1).cpu()} if first else {}
        rng = {"rng/cpu": torch.get_rng_state()}
        if self.device == "cuda":
            rng["rng/cuda"] = torch.cuda.get_rng_state()
        return {
            "model": {name: p.detach() for name, p in self._parameters.items()},
            "optimizer": moments | rng | step,
        }

    def restore(self, state: dict[str, dict[str, Any]]) -> None:
        self.restore_weights(state["model"])
        optimizer = state["optimizer"]
        torch.set_rng_state(optimizer["rng/cpu"])
        if "rng/cuda" in optimizer and self.device == "cuda":
            torch.cuda.set_rng_state(optimizer["rng/cuda"])
        if "step" not in optimizer:
            return  # saved before the first step: there are no moments yet
        for name, parameter in self._parameters.items():
            step_device = parameter.device if self.device == "cuda" else "cpu"
            self._optimizer.state[parameter] = {
                "step": optimizer["step"].reshape(()).to(step_device, copy=True),
                **{m: optimizer[f"{m}/{name}"].to(parameter.device, copy=True) for m in MOMENTS},
            }

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


def _adamw(parameters: dict[str, torch.nn.Parameter], weight_decay: float) -> torch.optim.AdamW:
    """AdamW (arXiv:1711.05101) that decays matrices and leaves norm scales alone."""
    matrices = [p for p in parameters.values() if p.dim() > 1]
    scales = [p for p in parameters.values() if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": scales, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, betas=BETAS, eps=EPS, fused=True)
