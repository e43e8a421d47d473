"""Builds the optimizer of a model: which rule steps which parameter, and its state dict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from engine.train.optim.head_muon import is_for_muon
from engine.train.optim.precision import round_stochastically
from engine.train.optim.rules import AdamW, AdamW8bit, Muon, Rule, TorchOptimizer
from engine.train.optim.stored import from_tensors, to_tensors
from profiles.errors import UserError
from profiles.spec import RunSpec

Parameters = dict[str, nn.Parameter]


class Optimizer:
    """Steps every parameter that has a gradient. ``label`` names the algorithm in the start record."""

    def __init__(self, label: str, optimizers: list[RuleOptimizer]) -> None:
        self.label = label
        self._optimizers = optimizers

    def step(self, lr: float) -> None:
        """Step at learning rate ``lr`` on the parameters' gradients, which it does not change."""
        for optimizer in self._optimizers:
            optimizer.step(lr)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors of a checkpoint (see ``stored``), not copied, and ``step``, a count of shape (1,).

        Empty before the first step.
        """
        tensors: dict[str, Tensor] = {}
        for optimizer in self._optimizers:
            tensors |= optimizer.state_dict()
        return tensors

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Load what ``state_dict`` returned, under any precision and strategy.

        Raises UserError where moments that this optimizer needs are missing.
        """
        if "step" not in tensors:
            return  # saved before the first step
        for optimizer in self._optimizers:
            optimizer.load_state_dict(tensors)


def build_optimizer(spec: RunSpec, parameters: Parameters, *, compiled: bool) -> Optimizer:
    """Return the optimizer of ``optim.name`` and ``memory.strategy``. ``compiled``: it may use torch.compile.

    Matrices decay, norm scales do not.
    """
    optim, decay = spec.optim, spec.optim.weight_decay
    if spec.memory.strategy == "states8bit":
        return Optimizer("adamw 8-bit (torchao)", [RuleOptimizer(AdamW8bit(optim, compiled), parameters, decay)])
    if optim.name == "adamw":
        return Optimizer("adamw fused", [RuleOptimizer(AdamW(optim), parameters, decay)])
    matrices = {n: p for n, p in parameters.items() if is_for_muon(n, p)}
    others = {n: p for n, p in parameters.items() if n not in matrices}
    muon = RuleOptimizer(Muon(spec.model.config), matrices, decay, optim.muon_scale)
    return Optimizer("muon per head + adamw fused", [muon, RuleOptimizer(AdamW(optim), others, decay)])


class RuleOptimizer:
    """The parameters of one rule. fp32 ones step together, bf16 ones one by one through an fp32 copy.

    ``lr_scale`` multiplies the learning rate.
    """

    def __init__(self, rule: Rule, parameters: Parameters, weight_decay: float, lr_scale: float = 1.0) -> None:
        self._rule = rule
        self._lr_scale = lr_scale
        self._bf16 = [Bf16Parameter(name, p, rule, weight_decay) for name, p in parameters.items() if is_bf16(p)]
        self._fp32 = {name: p for name, p in parameters.items() if not is_bf16(p)}
        matrices = {name: p for name, p in self._fp32.items() if p.dim() > 1}
        scales = {name: p for name, p in self._fp32.items() if p.dim() <= 1}
        groups = [_group(matrices, weight_decay), _group(scales, 0.0)]
        self._optimizer = rule.make_optimizer(groups)

    def step(self, lr: float) -> None:
        scaled = lr * self._lr_scale
        self._rule.step(self._optimizer, scaled)
        for each in self._bf16:
            each.step(scaled)

    def state_dict(self) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for name, _, optimizer, key in self._members():
            state = optimizer.state.get(key)
            if not state:
                continue
            for moment in self._rule.moments:
                tensors |= to_tensors(moment, name, self._rule.export_moment(state[moment]))
            if self._rule.counts_steps and "step" not in tensors:  # all parameters have taken the same number of steps
                tensors["step"] = state["step"].detach().reshape(1).cpu()
        return tensors

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        rule = self._rule
        for name, parameter, optimizer, key in self._members():
            like = parameter.detach().to(torch.float32)
            state = {}
            for moment in rule.moments:
                stored = from_tensors(moment, name, tensors)
                if stored is None:
                    raise UserError(
                        f"checkpoint: has no {moment} of {name}: another optimizer wrote it;"
                        " resume with that run's optim.name, or start from its weights with --init-from"
                    )
                state[moment] = rule.import_moment(optimizer, moment, stored, like)
            if rule.counts_steps:
                state["step"] = rule.step_tensor(tensors["step"].reshape(()), like)
            optimizer.state[key] = state

    def _members(self) -> Iterator[tuple[str, nn.Parameter, TorchOptimizer, nn.Parameter]]:
        """Yield name, parameter, the optimizer that steps it, and its key in that optimizer's state."""
        for name, parameter in self._fp32.items():
            yield name, parameter, self._optimizer, parameter
        for each in self._bf16:
            yield each.name, each.parameter, each.optimizer, each.copy


class Bf16Parameter:
    """A bf16 parameter. Its torch optimizer steps an fp32 copy, which has memory only during the step."""

    def __init__(self, name: str, parameter: nn.Parameter, rule: Rule, weight_decay: float) -> None:
        self.name = name
        self.parameter = parameter
        self._rule = rule
        self._empty = parameter.new_empty((0,) * parameter.dim(), dtype=torch.float32)
        self.copy = nn.Parameter(self._empty)
        self.optimizer = rule.make_optimizer([_group({name: self.copy}, weight_decay)])

    @torch.no_grad()
    def step(self, lr: float) -> None:
        if self.parameter.grad is None:
            return
        self.copy.data = self.parameter.to(torch.float32)
        self.copy.grad = self.parameter.grad.to(torch.float32)
        self._rule.step(self.optimizer, lr)
        round_stochastically(self.parameter, self.copy.data)
        self.copy.grad = None
        self.copy.data = self._empty


def _group(parameters: Parameters, weight_decay: float) -> dict[str, Any]:
    """Return a parameter group as torch's optimizers take it, with the names of the parameters."""
    return {"params": [*parameters.values()], "names": [*parameters], "weight_decay": weight_decay}


def is_bf16(parameter: nn.Parameter) -> bool:
    return parameter.dtype == torch.bfloat16
