"""The rules by which parameters are stepped, and what each keeps of a parameter between steps.

Bytes a parameter, between steps (gradients: 4, or 2 for bf16 weights in steps of a single micro-batch):

    rule          weight fp32 / bf16_sr   kept of the gradients
    adamw         4 / 2                   8      two fp32 moments
    muon          4 / 2                   4      one fp32 momentum (embedding, head and norm scales as adamw)
    adamw 8-bit   4 / 2                   2.03   two moments of 8 bits, an fp32 scale for each 256 of them
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from engine.train.optim.stored import Packed, Stored, unpacked

BETAS = (0.9, 0.95)
EPS = 1e-8
Groups = list[dict[str, Any]]


class Rule:
    """How torch steps parameters. ``moments`` are the names of what is kept, in ``torch.optim.Optimizer.state``."""

    moments: tuple[str, ...]
    counts_steps = True

    def make(self, groups: Groups) -> torch.optim.Optimizer:
        """A torch optimizer for fp32 parameters in groups of ``params`` and ``weight_decay``."""
        raise NotImplementedError

    def step(self, optimizer: torch.optim.Optimizer, lr: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()

    def counter(self, step: Tensor, like: Tensor) -> Tensor:
        """The steps taken so far, where the torch optimizer wants them for a parameter such as ``like``."""
        return step.to(like.device, copy=True)

    def store(self, kept: Tensor) -> Stored:
        """A moment out of the torch optimizer's state, not copied."""
        return kept

    def hold(self, optimizer: torch.optim.Optimizer, moment: str, stored: Stored, like: Tensor) -> Tensor:
        """The inverse of ``store``, from whatever form was stored; a copy shaped and placed as fp32 ``like``."""
        return unpacked(stored).to(like.device, copy=True)


class AdamW(Rule):
    """AdamW (arXiv:1711.05101) in one fused kernel."""

    moments = ("exp_avg", "exp_avg_sq")

    def make(self, groups: Groups) -> torch.optim.Optimizer:
        return torch.optim.AdamW(groups, lr=0.0, betas=BETAS, eps=EPS, fused=True)


class Muon(Rule):
    """Momentum made orthogonal by Newton-Schulz steps, for matrices (kellerjordan.github.io/posts/muon).

    Its updates are scaled to the size of AdamW's, so that one learning rate and one decay serve both
    (arXiv:2502.16982, section 2.2).
    """

    moments = ("momentum_buffer",)
    counts_steps = False

    def make(self, groups: Groups) -> torch.optim.Optimizer:
        return torch.optim.Muon(groups, lr=0.0, momentum=0.95, nesterov=True, adjust_lr_fn="match_rms_adamw")


class AdamW8bit(Rule):
    """AdamW whose moments are kept in 8 bits, block by block (arXiv:2110.02861), by torchao.

    Tensors of less than 4096 values, or not of whole blocks of 256, keep theirs in fp32. With ``compiled`` torchao has
    ``torch.compile`` make one kernel a shape: seconds for each, and a C++ or GPU compiler. Without, the same operations
    run one after the other, several times slower.
    """

    moments = AdamW.moments

    def __init__(self, compiled: bool) -> None:
        self._compiled = compiled

    def make(self, groups: Groups) -> torch.optim.Optimizer:
        with _quiet("torchao", "torch.utils._pytree"):  # they tell of kernels for other cards and of old calls
            from torchao.optim import AdamW8bit as Torchao
        optimizer: torch.optim.Optimizer = Torchao(groups, lr=0.0, betas=BETAS, eps=EPS)
        return optimizer

    def step(self, optimizer: torch.optim.Optimizer, lr: float) -> None:
        for group in optimizer.param_groups:
            group["lr"].fill_(lr)  # a tensor, or every new rate would be compiled anew
        with contextlib.nullcontext() if self._compiled else torch.compiler.set_stance("force_eager"):
            optimizer.step()

    def counter(self, step: Tensor, like: Tensor) -> Tensor:
        return step.to("cpu", copy=True)

    def store(self, kept: Any) -> Stored:
        return Packed(kept.codes, kept.scale, kept.qmap) if hasattr(kept, "codes") else kept

    def hold(self, optimizer: Any, moment: str, stored: Stored, like: Tensor) -> Tensor:
        kept: Tensor = optimizer._new_buffer(like, moment == "exp_avg")  # only the first moment has a sign
        mine = self.store(kept)
        if isinstance(stored, Packed) and isinstance(mine, Packed) and _same_layout(stored, mine):
            mine.codes.copy_(stored.codes)
            mine.scale.copy_(stored.scale)
        else:
            kept.copy_(unpacked(stored).to(like.device))
        return kept


def _same_layout(stored: Packed, mine: Packed) -> bool:
    return stored.scale.shape == mine.scale.shape and torch.equal(stored.levels, mine.levels.to(stored.levels.device))


@contextlib.contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Let the loggers of these names say nothing but errors."""
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
