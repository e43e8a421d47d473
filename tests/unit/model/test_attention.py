"""Blocked attention has the values, gradients and causality of the library's kernel."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.attention import BLOCK, MAX_BLOCKS, resolve_attention
from profiles.errors import SpecError

sdpa, blocked = resolve_attention("sdpa"), resolve_attention("blocked")
LENGTHS = [1, 7, BLOCK - 1, BLOCK, BLOCK + 1, 300, MAX_BLOCKS * BLOCK + 77]
Four = tuple[Tensor, ...]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def random(tokens: int, width: int, value: int, dtype: torch.dtype, batch: int = 2, heads: int = 3) -> Four:
    """Return q, k, v and the gradient of the output with the model's strides: heads inside the token axis."""
    draw = torch.Generator().manual_seed(tokens)
    shapes = [(batch, tokens, heads, w) for w in (width, width, value, value)]
    return tuple(torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype).transpose(1, 2) for shape in shapes)


def all_of(attend: object, tensors: Four, scale: float) -> Four:
    """Return the output and the gradients of q, k and v."""
    *inputs, gradient = tensors
    inputs = [x.detach().requires_grad_() for x in inputs]
    out = attend(*inputs, scale)  # type: ignore[operator]
    return (out.detach(), *torch.autograd.grad(out, inputs, gradient))


@pytest.mark.parametrize("tokens", LENGTHS)
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-13), (torch.float32, 2e-6)])
def test_blocked_equals_sdpa(tokens: int, dtype: torch.dtype, close: float) -> None:
    tensors = random(tokens, 12, 12, dtype)
    for ours, theirs in zip(all_of(blocked, tensors, 0.3), all_of(sdpa, tensors, 0.3), strict=True):
        assert ours.dtype == dtype and ours.shape == theirs.shape
        assert (ours - theirs).norm() <= close * max(theirs.norm().item(), 1.0)


@settings(max_examples=25, deadline=None)
@given(
    tokens=st.integers(1, 3 * BLOCK),
    width=st.integers(1, 20),
    value=st.integers(1, 20),
    batch=st.integers(1, 2),
    heads=st.integers(1, 3),
    scale=st.floats(0.05, 2.0),
)
def test_blocked_equals_sdpa_at_any_shape(
    tokens: int, width: int, value: int, batch: int, heads: int, scale: float
) -> None:
    tensors = random(tokens, width, value, torch.float64, batch, heads)
    for ours, theirs in zip(all_of(blocked, tensors, scale), all_of(sdpa, tensors, scale), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("tokens", [7, 300])
def test_in_bf16_the_error_is_at_most_about_twice_that_of_sdpa(tokens: int) -> None:
    rounded = random(tokens, 32, 32, torch.bfloat16)
    truth = all_of(sdpa, tuple(x.double() for x in rounded), 0.2)
    for ours, theirs, exact in zip(all_of(blocked, rounded, 0.2), all_of(sdpa, rounded, 0.2), truth, strict=True):
        assert ours.dtype == torch.bfloat16
        assert (ours - exact).norm() <= 2.3 * (theirs - exact).norm()
        assert (ours - exact).norm() <= 0.006 * exact.norm()


def test_later_tokens_are_masked() -> None:
    q, k, v, _ = random(300, 8, 8, torch.float64)
    before = blocked(q, k, v, 1.0)
    k[:, :, 200], v[:, :, 200] = 50.0, -50.0
    change = (blocked(q, k, v, 1.0) - before).abs().amax((0, 1, 3))
    assert change[:200].max().item() == 0.0 and change[200:].max().item() > 1.0


def test_scores_that_would_overflow_exp_are_finite() -> None:
    q, k, v, gradient = random(200, 8, 8, torch.float32)
    for ours, theirs in zip(
        all_of(blocked, (100 * q, k, v, gradient), 10.0), all_of(sdpa, (100 * q, k, v, gradient), 10.0), strict=True
    ):
        assert ours.isfinite().all()
        assert (ours - theirs).norm() <= 1e-3 * theirs.norm()


def test_compiled_equals_eager() -> None:
    tensors = random(200, 16, 8, torch.float32)
    compiled = torch.compile(blocked, dynamic=False)
    for ours, theirs in zip(all_of(compiled, tensors, 0.3), all_of(blocked, tensors, 0.3), strict=True):
        assert (ours - theirs).norm() <= 2e-6 * theirs.norm()


def test_an_unknown_kind_is_refused_by_name() -> None:
    with pytest.raises(SpecError, match=r"^train\.attention: 'flash' is not one of sdpa, blocked$"):
        resolve_attention("flash")  # type: ignore[arg-type]
