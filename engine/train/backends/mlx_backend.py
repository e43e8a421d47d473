"""Trains with MLX on Apple Silicon (unified memory) or on a Linux CPU: fp32 weights, bf16 activations on Metal."""

from __future__ import annotations

import gc
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import mlx.core as mx
import mlx.optimizers
import numpy as np
import torch

from engine.memory.limits import host_capacity, host_memory
from engine.train.backends.backend import Batch, State
from engine.train.optim.stored import dequantized, from_tensors
from engine.train.phases import BACKWARD, FORWARD, IDLE, OPTIMIZER, REDUCE, VALIDATION, Phases
from model.mlx_transformer import MLXTransformer, Tables, Weights, tables
from model.transformer import build
from profiles.errors import UserError
from profiles.optim import OptimTable
from profiles.spec import RunSpec

MOMENTS = {"exp_avg": "m", "exp_avg_sq": "v"}  # checkpoint name: MLX name


class MLXBackend:
    """See ``backend.Backend``."""

    can_retry_step = True

    def __init__(self, spec: RunSpec, document_end: int | None = None) -> None:
        train, memory = spec.train, spec.memory
        metal = mx.default_device() == mx.Device(mx.gpu)
        bf16 = train.precision == "bf16" or (train.precision == "auto" and metal)
        self._config = spec.model.config
        stream, checkpointed = mx.bfloat16 if bf16 else mx.float32, memory.checkpointing == "full"
        self._model = MLXTransformer(self._config, stream, checkpointed, document_end)
        # torch draws the initial weights, so that a seed gives the same weights on every backend.
        initial = build(self._config, train.seed).named_parameters()
        self._weights: Weights = {name: _to_mlx(parameter.detach()) for name, parameter in initial}
        self._chunked = memory.loss == "fused"
        self._tables: dict[int, Tables] = {}
        gradients = mx.value_and_grad(self._loss)
        # On a CPU MLX compiles each new kernel with a C++ compiler: seconds to minutes that a small model never saves.
        compiled = train.compile == "on" or (train.compile == "auto" and metal)
        self._gradients: Callable[..., tuple[mx.array, Weights]] = mx.compile(gradients) if compiled else gradients
        self._summed: Callable[..., mx.array] = mx.compile(self._loss) if compiled else self._loss
        self._optimizers = [_adamw(spec.optim, spec.optim.weight_decay), _adamw(spec.optim, 0.0)]
        self._start_moments()
        self._loss_sum = mx.array(0.0)
        self._window: Weights = {}
        self._finished = 0
        self._norm = 0.0
        self.device = "mlx"
        self.plan = {
            "backend": "mlx",
            "precision": "bf16" if bf16 else "fp32",
            "attention": "mlx fast",
            "loss": memory.loss,
            "checkpointing": "full" if memory.checkpointing == "full" else "none",
            "compile": "gradients" if compiled else "off",
            "optimizer": "adamw (mlx)",
            "strategy": "unified memory" if metal else "device",
        }
        self.versions = {"mlx": version("mlx"), "numpy": np.__version__}
        self.phases = Phases()

    def accumulate(self, batch: Batch, step_tokens: int, last: bool) -> None:
        self.phases.enter(FORWARD)
        loss, gradients = self._gradients(self._weights, *self._to_device(batch), 1 / step_tokens)
        self.phases.enter(BACKWARD)
        if self._window:
            gradients = {name: summed + gradients[name] for name, summed in self._window.items()}
        self._window, self._loss_sum = gradients, self._loss_sum + loss
        mx.eval(self._window, self._loss_sum)  # MLX is lazy: it computes only here
        self._finished += 1

    def finished(self) -> int:
        return self._finished

    def window_totals(self) -> tuple[float, float]:
        self.phases.enter(REDUCE)
        self._norm = float(mx.sqrt(sum((mx.sum(g * g) for g in self._window.values()), mx.array(0.0))))
        return float(self._loss_sum), self._norm

    def optimizer_step(self, lr: float, clip: float) -> None:
        self.phases.enter(OPTIMIZER)
        scale = clip / (self._norm + 1e-6) if clip and self._norm > clip else 1.0
        for optimizer, names in zip(self._optimizers, self._groups(), strict=True):
            optimizer.learning_rate = lr
            gradients = {name: self._window[name] * scale for name in names}
            self._weights |= optimizer.apply_gradients(gradients, {name: self._weights[name] for name in names})
        mx.eval(self._weights, *(optimizer.state for optimizer in self._optimizers))
        self.discard_window()
        self.phases.enter(IDLE)

    def discard_window(self) -> None:
        self._window, self._loss_sum, self._norm, self._finished = {}, mx.array(0.0), 0.0, 0

    def evaluate(self, batch: Batch) -> float:
        self.phases.enter(VALIDATION)
        loss = float(self._summed(self._weights, *self._to_device(batch), 1.0))
        self.phases.enter(IDLE)
        return loss

    def torch_model(self) -> None:
        return None

    def device_peak(self) -> int | None:
        peak = int(mx.get_peak_memory())
        mx.reset_peak_memory()
        return peak

    def capacity(self) -> int:
        return min(self.unified_memory()["unified_limit"], host_capacity())

    def host_states(self) -> int:
        return 0  # unified memory: nothing is offloaded

    def empty_cache(self) -> None:
        gc.collect()
        mx.clear_cache()

    def allocator_retries(self) -> int:
        return 0  # MLX does not report it

    def offload_for_pause(self) -> int:
        cached = int(mx.get_cache_memory())
        mx.clear_cache()
        return cached - int(mx.get_cache_memory())

    def restore_after_pause(self) -> None:
        pass

    def state_dict(self) -> State:
        optimizer: dict[str, Any] = {}
        for one, names in zip(self._optimizers, self._groups(), strict=True):
            if not (step := int(one.state["step"])):
                continue
            optimizer["step"] = torch.tensor([float(step)])
            for ours, theirs in MOMENTS.items():
                optimizer |= {f"{ours}/{name}": _to_torch(one.state[name][theirs]) for name in names}
        return {"model": {name: _to_torch(weight) for name, weight in self._weights.items()}, "optimizer": optimizer}

    def load_state_dict(self, state: State) -> None:
        self.load_weights(state["model"])
        optimizer = state["optimizer"]
        if "step" not in optimizer:
            return
        for one, names in zip(self._optimizers, self._groups(), strict=True):
            one.state["step"] = mx.array(int(optimizer["step"]), mx.uint64)
            for ours, theirs in MOMENTS.items():
                for name in names:
                    stored = from_tensors(ours, name, optimizer)
                    if stored is None:
                        raise UserError(
                            f"checkpoint: has no {ours} of {name}: another optimizer wrote it;"
                            " resume with that run's optim.name, or start from its weights with --init-from"
                        )
                    one.state[name][theirs] = _to_mlx(dequantized(stored))

    def load_weights(self, weights: dict[str, Any]) -> None:
        for name, weight in self._weights.items():
            if name not in weights or tuple(weights[name].shape) != weight.shape:
                found = tuple(weights[name].shape) if name in weights else "nothing"
                raise UserError(
                    f"checkpoint: {name} should be {weight.shape} and is {found};"
                    " take the model table of the run that wrote it"
                )
        self._weights = {name: _to_mlx(weights[name]) for name in self._weights}

    def unified_memory(self) -> dict[str, int]:
        limit = mx.device_info().get("max_recommended_working_set_size") or host_memory()[0]
        return {
            "unified_active": int(mx.get_active_memory()),
            "unified_cache": int(mx.get_cache_memory()),
            "unified_peak": int(mx.get_peak_memory()),
            "unified_limit": int(limit),
        }

    def _loss(
        self, weights: Weights, inputs_BT: mx.array, targets_BT: mx.array, tables: Tables, scale: float
    ) -> mx.array:
        return self._model.loss(weights, inputs_BT, targets_BT, tables, self._chunked) * scale

    def _to_device(self, batch: Batch) -> tuple[mx.array, mx.array, Tables]:
        """Return inputs, targets and rope tables. Checks the ids, because MLX does not check indices."""
        vocabulary = self._config.vocab_size
        if batch.size and not 0 <= batch.min() <= batch.max() < vocabulary:
            wrong = int(batch.min() if batch.min() < 0 else batch.max())
            raise UserError(f"token id {wrong} is outside the model's vocabulary of {vocabulary}; check the shards")
        context = batch.shape[1] - 1
        if context not in self._tables:
            self._tables = {context: tables(self._config, context)}
        tokens = mx.array(batch.astype(np.int32))
        return tokens[:, :-1], tokens[:, 1:], self._tables[context]

    def _groups(self) -> list[list[str]]:
        """Return the names of matrices, which decay, and of norm scales, which do not."""
        matrices = [name for name, weight in self._weights.items() if weight.ndim > 1]
        return [matrices, [name for name, weight in self._weights.items() if weight.ndim <= 1]]

    def _start_moments(self) -> None:
        for one, names in zip(self._optimizers, self._groups(), strict=True):
            one.init({name: self._weights[name] for name in names})


def _adamw(optim: OptimTable, decay: float) -> Any:
    betas = [optim.beta1, optim.beta2]
    return mlx.optimizers.AdamW(0.0, betas=betas, eps=optim.eps, weight_decay=decay, bias_correction=True)


def _to_mlx(tensor: torch.Tensor) -> mx.array:
    return mx.array(tensor.to(torch.float32).contiguous().numpy())


def _to_torch(array: mx.array) -> torch.Tensor:
    """Return a tensor that shares the array's memory. MLX never changes or reuses an array that is referenced."""
    return torch.from_numpy(np.array(array, copy=False))
