"""The fake card behaves at torch's edge as a card does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.fake_cuda.device import build, card
from tests.fake_cuda.driver import TOTAL


@pytest.fixture(autouse=True)
def whole_card() -> Iterator[None]:
    card.take_syncs()
    yield
    card.set_limit(TOTAL)


def test_memory_is_counted_and_limited() -> None:
    before = card.allocated
    held = torch.empty(1 << 20, dtype=torch.uint8, device="cuda")
    assert card.allocated - before == 1 << 20
    card.set_limit(card.allocated + (1 << 20))
    with pytest.raises(torch.OutOfMemoryError, match=r"CUDA out of memory. Tried to allocate 2.00 MiB"):
        torch.empty(2 << 20, dtype=torch.uint8, device="cuda")
    with pytest.raises(torch.OutOfMemoryError):  # also where a CPU's kernel makes the result
        torch.cat([held, held])
    del held
    assert card.allocated == before


def test_devices_do_not_mix() -> None:
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        torch.ones(2, device="cuda") + torch.ones(2)
    assert (torch.ones(2, device="cuda") * torch.tensor(3.0)).tolist() == [3, 3]  # a CPU's scalar may


def test_the_host_waits_for_values_alone() -> None:
    x = torch.randn(8, 8, device="cuda")
    total = (x @ x).sum()
    assert card.take_syncs() == 0
    float(total)
    assert card.take_syncs() == 1
    host = torch.ones(4).pin_memory()
    assert host.is_pinned()
    host.to("cuda", non_blocking=True)
    assert card.take_syncs() == 0
    x.cpu()
    assert card.take_syncs() == 1


def test_views_share_memory_and_in_place_results_are_the_tensor_given() -> None:
    x = torch.zeros(4, 4, device="cuda")
    x.t()[0] += 1
    assert x[:, 0].tolist() == [1, 1, 1, 1]
    out = torch.empty(0, device="cuda")
    assert torch.add(x, 1, out=out) is out
    assert out.shape == (4, 4)


def test_gradients_are_those_of_the_cpu() -> None:
    torch.manual_seed(1)
    weight, x = torch.randn(16, 16), torch.randn(4, 16)
    found = []
    for device in ("cpu", "cuda"):
        w = weight.detach().to(device, copy=True).requires_grad_()
        torch.nn.functional.silu(x.to(device) @ w).square().mean().backward()
        assert w.grad is not None
        found.append(w.grad.cpu())
    assert torch.allclose(found[0], found[1], rtol=1e-5)


def test_environments_share_one_build() -> None:
    libraries = Path(torch.__file__).parent / "lib"
    assert str(libraries).encode() not in build().read_bytes()
    loaded = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libtorch_cpu" in line}
    assert loaded == {str(libraries / "libtorch_cpu.so")}
