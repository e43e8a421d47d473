"""Implements activation checkpointing: what a block saves for backward and what it recomputes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from profiles.errors import SpecError

Checkpointing = Literal["none", "selective", "full", "offload"]
CheckpointFn = Callable[..., Tensor]

# The most expensive operations to recompute: projections, and attention where the library has one kernel for it.
_EXPENSIVE = {
    torch.ops.aten.mm.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
}
TILE_TOKENS = 4096


def resolve_checkpointing(kind: Checkpointing) -> CheckpointFn:
    """Return the function ``checkpoint(layer, x, *rest) -> y`` of that name: it runs ``layer`` and saves some tensors.

    "none" saves all that backward needs; "selective" the results of projections and attention kernels, so that only
    norms, rotations and gates are recomputed (arXiv:2205.05198, section 5); "full" only the inputs (arXiv:1604.06174).
    "offload" is "full" here; the rest of it is ``StreamOffload`` and ``tiled``.

    Raises SpecError for an unknown kind.
    """
    if kind not in _KINDS:
        raise SpecError(f"memory.checkpointing: {kind!r} is not one of {', '.join(_KINDS)}")
    return _KINDS[kind]


def _save_all(layer: Callable[..., Tensor], *args: Tensor) -> Tensor:
    return layer(*args)


# The model has no dropout, so there is no RNG state to save and restore.
_recompute = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)


def _selective_policy(context: object, operation: object, *args: object, **kwargs: object) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in _EXPENSIVE else CheckpointPolicy.PREFER_RECOMPUTE


_selective = partial(_recompute, context_fn=partial(create_selective_checkpoint_contexts, _selective_policy))

_KINDS: dict[str, CheckpointFn] = {
    "none": _save_all,
    "selective": _selective,
    "full": _recompute,
    "offload": _recompute,
}


def tiled(layer: Callable[[Tensor], Tensor], x_BTD: Tensor) -> Tensor:
    """Run a layer that acts on each token alone, TILE_TOKENS tokens at a time; each tile saves only its input."""
    return torch.cat([_recompute(layer, part) for part in torch.split(x_BTD, TILE_TOKENS, 1)], 1)
