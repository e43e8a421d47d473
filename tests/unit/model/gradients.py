"""Reads gradients of parameters that must have one."""

from __future__ import annotations

from torch import Tensor


def grad_of(parameter: Tensor) -> Tensor:
    """Return the gradient of ``parameter``; fail where backward left none."""
    assert parameter.grad is not None
    return parameter.grad
