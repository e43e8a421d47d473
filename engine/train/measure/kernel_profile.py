"""Profiles one micro-batch: which kernels the device runs, how long, and which attention torch has chosen."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from torch.autograd.profiler_util import DeviceType  # type: ignore[attr-defined]
from torch.profiler import profile, supported_activities

from engine.train.backends.backend import Backend
from profiles.spec import RunSpec

# torch's operators behind scaled_dot_product_attention, and their names for users.
_ATTENTION = {
    "_scaled_dot_product_flash_attention": "flash",
    "_scaled_dot_product_cudnn_attention": "cudnn",
    "_scaled_dot_product_efficient_attention": "efficient",
    "_scaled_dot_product_attention_math": "math",
}
LONGEST = 20


@dataclass(frozen=True, slots=True)
class KernelProfile:
    """``launches`` of ``distinct`` kernels; the ``longest``: name, launches, seconds. ``attention`` may be several."""

    launches: int
    distinct: int
    longest: list[tuple[str, int, float]]
    attention: str


def profile_micro_batch(backend: Backend, spec: RunSpec) -> KernelProfile:
    """Profile forward and backward of a micro-batch of random tokens, and drop its gradients."""
    shape = spec.batch.micro, spec.batch.context + 1
    tokens = np.random.default_rng(1).integers(0, spec.model.config.vocab_size, shape)
    activities = supported_activities()  # type: ignore[no-untyped-call]
    with profile(activities=activities) as profiled:
        backend.accumulate(tokens, spec.tokens_per_step, last=True)
        torch.cuda.synchronize()
    backend.discard_window()
    launches: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    attention = set()
    for event in profiled.events() or ():
        if event.device_type == DeviceType.CUDA:
            launches[event.name] += 1
            seconds[event.name] += event.device_time * 1e-6
        elif name := _ATTENTION.get(event.name.removeprefix("aten::")):
            attention.add(name)
    longest = [(name, launches[name], float(used)) for name, used in seconds.most_common(LONGEST)]
    return KernelProfile(launches.total(), len(launches), longest, " and ".join(sorted(attention)) or "none seen")
