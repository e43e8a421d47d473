"""Defines the update rules (AdamW, Muon, 8-bit AdamW) and how their optimizer states are saved and loaded.

Bytes per parameter between steps (gradients: 4, or 2 for bf16 weights in steps of a single micro-batch):

    rule          weight fp32 / bf16_sr   optimizer states
    adamw         4 / 2                   8      two fp32 moments
    muon          4 / 2                   4      one fp32 momentum (embedding, head and norm scales as adamw)
    adamw 8-bit   4 / 2                   2.03   two moments of 8 bits, an fp32 scale for each 256 of them
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, MutableMapping
from typing import Any, Protocol

import torch
from torch import Tensor

from engine.train.optim.fused_adamw import FusedAdamW
from engine.train.optim.head_muon import HeadMuon
from engine.train.optim.stored import Quantized, Stored, dequantized
from model.shapes import head_rows
from profiles.model_config import ModelConfig
from profiles.optim import OptimTable

Groups = list[dict[str, Any]]


class TorchOptimizer(Protocol):
    """What is used of a ``torch.optim.Optimizer``."""

    param_groups: Groups

    @property
    def state(self) -> MutableMapping[Tensor, dict[str, Any]]: ...

    def step(self) -> object: ...


class Rule:
    """An update rule. ``moments``: the keys of its states in ``torch.optim.Optimizer.state``."""

    moments: tuple[str, ...]
    counts_steps = True

    def make_optimizer(self, groups: Groups) -> TorchOptimizer:
        """Return an optimizer for fp32 parameters in groups of ``params``, ``names`` and ``weight_decay``."""
        raise NotImplementedError

    def step(self, optimizer: TorchOptimizer, lr: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()

    def step_tensor(self, step: Tensor, like: Tensor) -> Tensor:
        """Return the step count on the device where the torch optimizer keeps it for a parameter like ``like``."""
        return step.to(like.device, copy=True)

    def export_moment(self, tensor: Tensor) -> Stored:
        """Return a moment of the torch optimizer's state in the checkpoint's form, not copied."""
        return tensor

    def import_moment(self, optimizer: TorchOptimizer, moment: str, stored: Stored, like: Tensor) -> Tensor:
        """Return the optimizer's tensor for a stored moment in any form: a copy shaped and placed as fp32 ``like``."""
        return dequantized(stored).to(like.device, copy=True)


class AdamW(Rule):
    """AdamW (arXiv:1711.05101) in one fused kernel."""

    moments = ("exp_avg", "exp_avg_sq")

    def __init__(self, optim: OptimTable) -> None:
        self._betas, self._eps = (optim.beta1, optim.beta2), optim.eps

    def make_optimizer(self, groups: Groups) -> TorchOptimizer:
        return FusedAdamW(groups, self._betas, self._eps)


class Muon(Rule):
    """Orthogonalized momentum for matrices, head by head where one holds those of all heads (``head_muon``)."""

    moments = ("momentum_buffer",)
    counts_steps = False

    def __init__(self, config: ModelConfig) -> None:
        self._rows = head_rows(config)

    def make_optimizer(self, groups: Groups) -> TorchOptimizer:
        return HeadMuon(groups, self._rows)


class AdamW8bit(Rule):
    """AdamW with block-wise 8-bit moments (arXiv:2110.02861), by torchao.

    Tensors of fewer than 4096 values, or not a multiple of 256, keep fp32 moments. With ``compiled``, torchao compiles
    one kernel per shape, which takes seconds each and needs a C++ or GPU compiler. Without, the same operations run one
    by one, several times slower.
    """

    moments = AdamW.moments

    def __init__(self, optim: OptimTable, compiled: bool) -> None:
        self._betas, self._eps = (optim.beta1, optim.beta2), optim.eps
        self._compiled = compiled

    def make_optimizer(self, groups: Groups) -> TorchOptimizer:
        with _quiet("torchao", "torch.utils._pytree"):  # they warn about kernels for other cards and deprecated calls
            from torchao.optim import AdamW8bit as Torchao
        optimizer: TorchOptimizer = Torchao(groups, lr=0.0, betas=self._betas, eps=self._eps)
        return optimizer

    def step(self, optimizer: TorchOptimizer, lr: float) -> None:
        for group in optimizer.param_groups:
            group["lr"].fill_(lr)  # a tensor, because a new float would trigger a recompilation
        with contextlib.nullcontext() if self._compiled else torch.compiler.set_stance("force_eager"):
            optimizer.step()

    def step_tensor(self, step: Tensor, like: Tensor) -> Tensor:
        return step.to("cpu", copy=True)

    def export_moment(self, tensor: Any) -> Stored:
        return Quantized(tensor.codes, tensor.scale, tensor.qmap) if hasattr(tensor, "codes") else tensor

    def import_moment(self, optimizer: Any, moment: str, stored: Stored, like: Tensor) -> Tensor:
        tensor: Tensor = optimizer._new_buffer(like, moment == "exp_avg")  # only the first moment has a sign
        target = self.export_moment(tensor)
        if isinstance(stored, Quantized) and isinstance(target, Quantized) and _same_layout(stored, target):
            target.codes.copy_(stored.codes)
            target.scale.copy_(stored.scale)
        else:
            tensor.copy_(dequantized(stored).to(like.device))
        return tensor


def _same_layout(stored: Quantized, own: Quantized) -> bool:
    return stored.scale.shape == own.scale.shape and torch.equal(stored.levels, own.levels.to(stored.levels.device))


@contextlib.contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Let these loggers log errors only."""
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
