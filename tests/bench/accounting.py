"""Measures the memory of a real training step tensor by tensor, to compare with the forecast.

Under ``MemoryTracker`` every storage is counted once, from its allocation until it is freed, by the part it belongs to.
It works with real tensors and with fake ones, which have a size but no memory.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass
from torch.utils._pytree import tree_leaves

from engine.memory import step
from engine.memory.forecast import forecast, micro_batch_shape
from engine.memory.hardware import Hardware
from engine.train.backends.build import build_backend
from engine.train.backends.ranks import SingleRank
from engine.train.backends.torch_plan import resolve_plan, stream_dtype
from engine.train.optim.optimizer import build_optimizer
from model.loss import resolve_loss
from model.transformer import MLATransformer
from profiles.spec import RunSpec


class MemoryTracker(TorchDispatchMode):
    """Live bytes by part, and the bytes by part at the peak since ``start``."""

    def __init__(self) -> None:
        super().__init__()
        self.part = "activations"  # the part of what is allocated now
        self.live: dict[str, int] = {}
        self.total = self.peak = 0
        self.parts_at_peak: dict[str, int] = {}
        self._known: dict[int, tuple[int, str]] = {}

    def start(self) -> None:
        self.peak, self.parts_at_peak = self.total, dict(self.live)

    def assign(self, tensor: Tensor, part: str) -> None:
        """Count the storage of ``tensor`` as ``part`` from now on."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            size, before = self._known[key]
            self.live[before] -= size
        else:
            size = storage.nbytes()
            self.total += size
            weakref.finalize(storage, self._freed, key)
        self._known[key] = (size, part)
        self.live[part] = self.live.get(part, 0) + size

    def _freed(self, key: int) -> None:
        size, part = self._known.pop(key)
        self.live[part] -= size
        self.total -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and _is_memory(leaf) and not self._knows(leaf):
                self.assign(leaf, self._part_of(func, args))
        if self.total > self.peak:
            self.peak, self.parts_at_peak = self.total, dict(self.live)
        return result

    def _knows(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self._known

    def _part_of(self, func: Any, args: Any) -> str:
        if func is torch.ops.aten._to_copy.default:
            source = self._known.get(args[0].untyped_storage()._cdata)
            if source is not None and source[1] == "weights":
                return "weight casts"
        return self.part


def _is_memory(tensor: Tensor) -> bool:
    """Return whether the tensor has its own storage, real or fake."""
    return tensor.device.type != "meta" and not is_traceable_wrapper_subclass(tensor)


@contextmanager
def tracked_parts(tracker: MemoryTracker, model: Any) -> Iterator[None]:
    """Within this context count parameters as weights and their gradients as gradients; from the decoder's output until
    the gradient of that output, count everything as logits."""
    hooks = [
        parameter.register_post_accumulate_grad_hook(lambda p: tracker.assign(p.grad, "gradients"))
        for parameter in model.parameters()
    ]
    hooks.append(model.model.register_forward_hook(_then(tracker, "logits")))
    for parameter in model.parameters():
        tracker.assign(parameter, "weights")
    tracker.part = "activations"
    yield
    for hook in hooks:
        hook.remove()


def measured(spec: RunSpec) -> dict[str, int]:
    """Return the bytes by part at the peak of the second step of ``spec``'s own backend on random tokens."""
    draw = np.random.default_rng(spec.train.seed)
    tracker = MemoryTracker()
    with tracker:
        backend = build_backend(spec, SingleRank(), 0 if spec.data.documents == "mask" else None)
        model = backend._torch_model.module  # type: ignore[attr-defined]
        with tracked_parts(tracker, model):
            for _ in range(2):
                tracker.start()
                tracker.part = "activations"
                for number in range(spec.accum):
                    shape = spec.batch.micro, spec.batch.context + 1
                    backend.accumulate(
                        draw.integers(0, spec.model.config.vocab_size, shape),
                        spec.tokens_per_step,
                        last=number == spec.accum - 1,
                    )
                tracker.part = "optimizer workspace"
                backend.window_totals()
                backend.optimizer_step(1e-3, 1.0)
                for tensor in (*backend.state_dict()["optimizer"].values(), *_offloaded(backend)):
                    tracker.assign(tensor, "optimizer")
    return tracker.parts_at_peak


def _offloaded(backend: Any) -> Iterator[Tensor]:
    """Yield the tensors that DeepSpeed holds in RAM."""
    if zero := getattr(backend, "_zero", None):
        for master in zero.single_partition_of_fp32_groups:
            yield from (master, master.grad)
        yield from zero.param_buffer_of_bit16_for_cpu_offload_groups
        yield from zero.accumulated_grads_in_cpu.values()
        yield zero.temp_grad_buffer_for_cpu_offload


def forecast_parts(spec: RunSpec) -> dict[str, int]:
    """Return the forecast for ``measured``, without the process's own memory, in the tracker's parts."""
    here = Hardware("here", "cpu", None, None, 1 << 40, 1 << 40)
    found: dict[str, int] = {}
    for part, size in forecast(spec, here).host.items():
        if part not in ("process", "allocator slack"):
            part = _PARTS.get(part, "optimizer" if part.startswith("offloaded") else part)
            found[part] = found.get(part, 0) + size
    return found


# The tracker cannot tell these from other temporary tensors.
_PARTS = dict.fromkeys(("attention", "batch and rope", "buckets"), "activations")


def _then(tracker: MemoryTracker, part: str) -> Callable[..., None]:
    """Return a forward hook that sets ``part`` until the gradient of the module's output is computed."""

    def hook(module: Any, args: Any, result: Tensor) -> None:
        tracker.part = part
        if result.requires_grad:

            def back(grad: Tensor) -> None:
                tracker.part = "activations"

            result.register_hook(back)

    return hook


def measured_fake(spec: RunSpec) -> dict[str, int]:
    """Measure at any size with fake tensors: the real model, loss and optimizer of ``spec`` on a CPU.

    With ``memory.strategy = "offload"`` each gradient is freed once it is computed, as DeepSpeed does.
    """
    plan, offloaded = resolve_plan(spec, "cpu"), spec.memory.strategy == "offload"
    ids = spec.batch.micro, spec.batch.context + 1
    tracker = MemoryTracker()
    with FakeTensorMode():
        torch.set_default_dtype(stream_dtype(plan) if offloaded else torch.float32)
        model = MLATransformer(spec.model.config, plan.checkpointing, plan.attention, stream_dtype(plan))  # type: ignore[arg-type]
        torch.set_default_dtype(torch.float32)
        compute = resolve_loss(plan.loss)  # type: ignore[arg-type]
        optimizer = build_optimizer(spec, dict(model.named_parameters()), compiled=False)
        with tracker, tracked_parts(tracker, model):
            offloading = [p.register_post_accumulate_grad_hook(_free_gradient) for p in model.parameters() if offloaded]
            for _ in range(1 if offloaded else 2):
                tracker.start()
                for _ in range(min(spec.accum, 2)):
                    tracker.part = "activations"
                    tokens = torch.zeros(ids, dtype=torch.int64)
                    loss = compute(model, tokens[:, :-1], tokens[:, 1:]) / spec.tokens_per_step
                    loss.backward()
                    del loss, tokens
                if not offloaded:
                    tracker.part = "optimizer workspace"
                    optimizer.step(1e-3)
                    for tensor in optimizer.state_dict().values():
                        tracker.assign(tensor, "optimizer")
                    model.zero_grad(set_to_none=True)
            for hook in offloading:
                hook.remove()
    return tracker.parts_at_peak


def _free_gradient(parameter: Any) -> None:
    parameter.grad = None


def forecast_fake(spec: RunSpec) -> dict[str, int]:
    """Return the forecast for ``measured_fake``."""
    if spec.memory.strategy != "offload":
        return forecast_parts(spec)
    one = replace(micro_batch_shape(spec, "cpu", resolve_plan(spec, "cpu")), bucket_bytes=0)
    parts = step.peak_parts(one, (("weights", spec.model.config.params * one.width),))
    found: dict[str, int] = {}
    for part, size in parts.items():
        found[_PARTS.get(part, part)] = found.get(_PARTS.get(part, part), 0) + size
    return found
