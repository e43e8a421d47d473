"""Steps ZeRO-2's partitions: the matrices of the blocks by Muon, the other parameters by DeepSpeedCPUAdam.

Masters and momenta stay in host memory. Each matrix's update crosses to the device in the dtype in which it is
orthogonalized there, and comes back: on a CPU these products would take longer than the step of a large model.

DeepSpeed has a Muon of its own, which is another recipe: it orthogonalizes before the gradient is clipped, and splits
``kv_b_proj`` evenly, which mixes the keys and values of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.train.optim.head_muon import direction, head_matrices, iterate_dtype, orthogonalized, step_size

MOMENTUM = "momentum_buffer"


@dataclass(frozen=True, slots=True)
class Fragment:
    """What this rank's partition has of a matrix: ``count`` values from ``start`` on, which are its from ``offset`` on.

    ``split``: no rank has all of it.
    """

    name: str
    shape: torch.Size
    start: int
    offset: int
    count: int
    split: bool


def fragments(
    matrices: Sequence[Any], names: Mapping[Any, str], all_reduce: Callable[[Tensor], None]
) -> list[Fragment]:
    """Return what this rank has of each of ``matrices``, the parameters of a group of ZeRO in its order."""
    held = [parameter._hp_mapping for parameter in matrices]  # None where this rank has nothing of it
    counts = [mapping.hp_fragment_address.numel if mapping else 0 for mapping in held]
    whole = torch.tensor([float(n == parameter.numel()) for n, parameter in zip(counts, matrices, strict=True)])
    all_reduce(whole)
    return [
        Fragment(
            names[parameter],
            parameter.shape,
            mapping.hp_fragment_address.start if mapping else 0,
            mapping.lp_fragment_address.start if mapping else 0,
            count,
            split=not holders,
        )
        for parameter, mapping, count, holders in zip(matrices, held, counts, whole.tolist(), strict=True)
    ]


class PartitionedMuon:
    """What ZeRO uses of an optimizer: ``step``, for one group at a time, ``param_groups`` and ``state``.

    Muon steps the first group, of whose matrices this rank has what ``matrices`` says; ``adam``, which has all groups,
    steps the others. ``rows``: what ``head_rows`` returned. ``all_reduce`` sums a tensor of the host over the ranks.
    """

    def __init__(
        self,
        adam: Any,
        matrices: Sequence[Fragment],
        rows: Mapping[str, tuple[int, ...]],
        device: str,
        all_reduce: Callable[[Tensor], None],
    ) -> None:
        self._adam, self._muon_group = adam, adam.param_groups[0]
        self._matrices, self._rows, self._device, self._all_reduce = matrices, rows, torch.device(device), all_reduce

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        groups: list[dict[str, Any]] = self._adam.param_groups
        return groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        self._adam.param_groups = groups

    @property
    def state(self) -> dict[Tensor, dict[str, Any]]:
        states: dict[Tensor, dict[str, Any]] = self._adam.state
        return states

    @torch.no_grad()
    def step(self) -> None:
        """Step the only group of ``param_groups``, at its ``lr`` and ``weight_decay``."""
        (group,) = self.param_groups
        if group is not self._muon_group:
            self._adam.step()
            return
        (partition,) = group["params"]
        momentum, lr = self.state[partition][MOMENTUM], group["lr"]
        for one in self._matrices:
            if not one.count and not one.split:
                continue  # another rank steps it
            own, own_of_matrix = slice(one.start, one.start + one.count), slice(one.offset, one.offset + one.count)
            update = direction(partition.grad[own], momentum[own])
            if one.split:
                whole = torch.zeros(one.shape)
                whole.view(-1)[own_of_matrix] = update
                self._all_reduce(whole)
                update = whole
            update = update.view(one.shape)
            for matrices in head_matrices(self._rows, one.name, update):
                found = orthogonalized(matrices.to(iterate_dtype(self._device)).to(self._device))
                matrices.copy_(found.cpu()).mul_(step_size(matrices))
            partition[own].mul_(1 - lr * group["weight_decay"]).add_(update.view(-1)[own_of_matrix], alpha=-lr)
