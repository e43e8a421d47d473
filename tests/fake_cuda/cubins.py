"""Compiles blocks and loss for a GPU that is not there: ``FAKE_CUDA_SM=120 python -m tests.fake_cuda.cubins SETTING…``.

A real torch backend runs one micro-batch, forward and backward, on the fake card. TorchInductor generates its Triton
kernels as on a card, Triton and ptxas compile them to machine code of that architecture, and a driver that launches
nothing keeps the result. Printed is one JSON list: name, phase, architecture, bytes, registers, stack and shared memory
of each kernel. A stack that is not empty is spilled registers.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import triton
from torch import Tensor

from engine.train.backends.torch_backend import TorchBackend
from model import attention
from profiles.registry import load
from tests.fake_cuda.driver import CAPABILITY

# Small, with the head widths of mla-1b: they decide which attention kernel a card takes.
MODEL = (
    *("model.hidden_size=256", "model.num_hidden_layers=1", "model.num_attention_heads=2", "model.vocab_size=512"),
    *("model.qk_nope_head_dim=64", "model.qk_rope_head_dim=64", "model.v_head_dim=128", "model.kv_lora_rank=512"),
    *("model.intermediate_size=640", "context=64", "sequences=2", "micro=2", "memory.loss=fused"),
)
SHARED_MEMORY = {90: 232448, 120: 101376}  # bytes that a block can have
SM = CAPABILITY[0] * 10 + CAPABILITY[1]

Kernel = dict[str, Any]


class Driver:
    """What Triton asks of the CUDA driver. Kernels are kept in ``kernels`` and never run."""

    def __init__(self) -> None:
        self.kernels: list[tuple[str, str, bytes, int]] = []
        self.phase = ""  # of the step
        self.utils = self
        self.launcher_cls = lambda source, metadata: lambda *args, **kwargs: None

    @staticmethod
    def is_active() -> bool:
        return True

    def load_binary(self, name: str, cubin: bytes, shared: int, device: int) -> tuple[int, int, int, int, int]:
        self.kernels.append((self.phase, name, cubin, shared))
        return 1, 1, 0, 0, 1024  # module, function, registers, spills, most threads of a block

    def unload_module(self, module: int) -> None:
        pass

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": SHARED_MEMORY[SM], "max_num_regs": 65536, "multiprocessor_count": 84, "warpSize": 32}

    def get_current_target(self) -> Any:
        return triton.backends.compiler.GPUTarget("cuda", SM, 32)

    def get_current_device(self) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cuda", 0)

    def get_device_interface(self) -> Any:
        return torch.cuda


def compile_for_card(settings: list[str]) -> list[Kernel]:
    """Return the kernels of a micro-batch of ``MODEL`` with ``settings``."""
    driver = Driver()
    _let_triton_use(driver)
    _let_inductor_use_the_card()
    _let_attention_be_flash()
    backend = TorchBackend(load("cpu_demo", [*MODEL, "train.compile=on", "memory.strategy=device", *settings]))
    backend.phases.listen(lambda phase: setattr(driver, "phase", phase))
    backend.accumulate(np.zeros((2, 65), dtype=np.int64), 128, last=True)
    return [_kernel(*kernel) for kernel in driver.kernels]


def _let_triton_use(driver: Driver) -> None:
    from triton.runtime.driver import driver as active

    backends = triton.backends.backends
    nvidia = backends["nvidia"]
    backends.clear()
    backends["nvidia"] = type(nvidia)(nvidia.compiler, Driver)
    active.set_active(driver)


def _let_inductor_use_the_card() -> None:
    from torch._dynamo import device_interface
    from torch._functorch import config as functorch_config
    from torch._inductor import config
    from torch._inductor.runtime import triton_heuristics

    config.compile_threads = 1  # processes would not have this driver
    config.fx_graph_cache = False
    config.use_static_triton_launcher = False
    functorch_config.graphsafe_rng_functionalization = False  # asks the card for the state of its generator

    def empty_strided(sizes: Any, strides: Any, dtype: torch.dtype) -> Tensor:
        return torch.empty_strided(sizes, strides, dtype=dtype, device="cuda")

    replaced: list[tuple[Any, str, Callable[..., Any]]] = [
        (triton_heuristics.CachingAutotuner, "bench", lambda *args, **given: 1.0),
        (device_interface.CudaInterface, "get_raw_stream", lambda device: 0),
        (torch._C, "_cuda_getCurrentRawStream", lambda device: 0),
        (torch._C._dynamo.guards, "_empty_strided_cuda", empty_strided),
    ]
    for owner, name, function in replaced:
        setattr(owner, name, staticmethod(function) if isinstance(owner, type) else function)


def _let_attention_be_flash() -> None:
    """Take the kernel that a card takes. Its code comes with torch: here it only has results of the right shapes."""
    from torch import _meta_registrations as shapes

    for name in ("_scaled_dot_product_flash_attention", "_scaled_dot_product_flash_backward"):
        shape = getattr(shapes, f"meta_{name}")
        operator = name.replace("flash_backward", "flash_attention_backward")
        _LIBRARY.impl(operator, partial(_empty_results, shape), "CUDA")
    flash = torch.ops.aten._scaled_dot_product_flash_attention
    attention._ATTENTIONS["sdpa"] = lambda q, k, v, scale, documents: flash(q, k, v, 0.0, True, scale=scale)[0]


def _empty_results(shape: Callable[..., tuple[Any, ...]], *args: Any, **given: Any) -> tuple[Any, ...]:
    results = shape(*args, **given)
    return tuple(torch.empty_like(r, device="cuda") if isinstance(r, Tensor) and r.is_meta else r for r in results)


_LIBRARY = torch.library.Library("aten", "IMPL")


def _kernel(phase: str, name: str, cubin: bytes, shared: int) -> Kernel:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        cuobjdump = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
        argv = [str(cuobjdump), "--dump-elf", "--dump-resource-usage", file.name]
        report = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    found = dict(re.findall(r"\b(sm|REG|STACK)[=:](\w+)", report))
    return {
        **{"name": name, "phase": phase, "architecture": f"sm_{found['sm']}", "bytes": len(cubin), "shared": shared},
        **{"registers": int(found["REG"]), "stack": int(found["STACK"])},
    }


if __name__ == "__main__":
    print(json.dumps(compile_for_card(sys.argv[1:])))
