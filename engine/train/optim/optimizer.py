"""The optimizer of a model: which rule steps which parameter, and all it must remember."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from engine.train.optim.precision import round_into
from engine.train.optim.rules import AdamW, AdamW8bit, Muon, Rule
from engine.train.optim.stored import from_tensors, to_tensors
from profiles.errors import UserError
from profiles.spec import RunSpec

Parameters = dict[str, nn.Parameter]


class Optimizer:
    """Steps every parameter that has a gradient. ``label`` says how, for the start record."""

    def __init__(self, label: str, parts: list[Part]) -> None:
        self.label = label
        self._parts = parts

    def step(self, lr: float) -> None:
        """One step at learning rate ``lr`` on the gradients the parameters hold; they stay as they are."""
        for part in self._parts:
            part.step(lr)

    def state_dict(self) -> dict[str, Tensor]:
        """Every tensor a checkpoint needs, not copied (see ``stored``), and ``step``, a count of shape (1,).

        Empty before the first step.
        """
        tensors: dict[str, Tensor] = {}
        for part in self._parts:
            tensors |= part.state_dict()
        return tensors

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Take ``state_dict`` back, by whichever precision and strategy it was kept.

        Raises UserError where moments are missing that this optimizer needs.
        """
        if "step" not in tensors:
            return  # saved before the first step: there is nothing to remember yet
        for part in self._parts:
            part.load_state_dict(tensors)


def build_optimizer(spec: RunSpec, parameters: Parameters, *, compiled: bool) -> Optimizer:
    """What ``optim.name`` and ``memory.strategy`` ask for; ``compiled``: torch.compile may be used for it.

    Decay is for matrices, never for norm scales. Muon takes the matrices of the blocks; the embedding and the head,
    whose rows are looked up or compared one by one, stay with AdamW.
    """
    decay = spec.optim.weight_decay
    if spec.memory.strategy == "states8bit":
        return Optimizer("adamw 8-bit (torchao)", [Part(AdamW8bit(compiled), parameters, decay)])
    if spec.optim.name == "adamw":
        return Optimizer("adamw fused", [Part(AdamW(), parameters, decay)])
    matrices = {n: p for n, p in parameters.items() if n.startswith("model.layers.") and p.dim() == 2}
    others = {n: p for n, p in parameters.items() if n not in matrices}
    return Optimizer("muon + adamw fused", [Part(Muon(), matrices, decay), Part(AdamW(), others, decay)])


class Part:
    """The parameters of one rule: those in fp32 stepped at once, those in bf16 one by one through an fp32 copy."""

    def __init__(self, rule: Rule, parameters: Parameters, weight_decay: float) -> None:
        self._rule = rule
        self._narrow = [Narrow(name, p, rule, weight_decay) for name, p in parameters.items() if is_narrow(p)]
        self._wide = {name: p for name, p in parameters.items() if not is_narrow(p)}
        matrices = [p for p in self._wide.values() if p.dim() > 1]
        scales = [p for p in self._wide.values() if p.dim() <= 1]
        groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": scales, "weight_decay": 0.0}]
        self._optimizer = rule.make(groups)

    def step(self, lr: float) -> None:
        self._rule.step(self._optimizer, lr)
        for narrow in self._narrow:
            narrow.step(lr)

    def state_dict(self) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for name, _, optimizer, known in self._members():
            kept = optimizer.state.get(known)
            if not kept:
                continue
            for moment in self._rule.moments:
                tensors |= to_tensors(moment, name, self._rule.store(kept[moment]))
            if self._rule.counts_steps and "step" not in tensors:  # all step together: one count is enough
                tensors["step"] = kept["step"].detach().reshape(1).cpu()
        return tensors

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        rule = self._rule
        for name, parameter, optimizer, known in self._members():
            like = parameter.detach().to(torch.float32)
            kept = {}
            for moment in rule.moments:
                stored = from_tensors(moment, name, tensors)
                if stored is None:
                    raise UserError(
                        f"checkpoint: holds no {moment} of {name}: another optimizer wrote it;"
                        " go on with that run's optim.name, or start from its weights with --init-from"
                    )
                kept[moment] = rule.hold(optimizer, moment, stored, like)
            if rule.counts_steps:
                kept["step"] = rule.counter(tensors["step"].reshape(()), like)
            optimizer.state[known] = kept

    def _members(self) -> Iterator[tuple[str, nn.Parameter, torch.optim.Optimizer, nn.Parameter]]:
        """Name, parameter, the torch optimizer that steps it and what that one knows it by."""
        for name, parameter in self._wide.items():
            yield name, parameter, self._optimizer, parameter
        for narrow in self._narrow:
            yield narrow.name, narrow.parameter, narrow.optimizer, narrow.copy


class Narrow:
    """A bf16 parameter: its torch optimizer sees an fp32 copy, which holds numbers only while it is stepped."""

    def __init__(self, name: str, parameter: nn.Parameter, rule: Rule, weight_decay: float) -> None:
        self.name = name
        self.parameter = parameter
        self._rule = rule
        self._nothing = parameter.new_empty((0,) * parameter.dim(), dtype=torch.float32)
        self.copy = nn.Parameter(self._nothing)
        self.optimizer = rule.make([{"params": [self.copy], "weight_decay": weight_decay}])

    @torch.no_grad()
    def step(self, lr: float) -> None:
        if self.parameter.grad is None:
            return
        self.copy.data = self.parameter.to(torch.float32)
        self.copy.grad = self.parameter.grad.to(torch.float32)
        self._rule.step(self.optimizer, lr)
        round_into(self.parameter, self.copy.data)
        self.copy.grad = None
        self.copy.data = self._nothing


def is_narrow(parameter: nn.Parameter) -> bool:
    return parameter.dtype == torch.bfloat16
