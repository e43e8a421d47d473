"""Builds the model for the torch-based backends: resolves the execution plan, compiles blocks, moves data."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from engine.execution.compile_cache import remove_incomplete
from engine.execution.compiler import inductor_cache_dir
from engine.memory.limits import host_capacity
from engine.train.backends.backend import Batch
from engine.train.backends.host_offload import empty_cache
from engine.train.backends.torch_plan import resolve_plan, stream_dtype
from model.attention import AttentionKind
from model.checkpointing import Checkpointing
from model.loss import Loss, LossKind, resolve_loss
from model.transformer import MLATransformer, build
from profiles.errors import UserError
from profiles.spec import RunSpec

# Each batch shape (a live edit, the rest of a validation set) is compiled separately, for training and for validation.
# With torch's default of 8, further shapes would run eagerly.
RECOMPILE_LIMIT = 64


class TorchModel:
    """The model, loss and data transfer of ``spec``, with every "auto" but the optimizer's resolved."""

    def __init__(self, spec: RunSpec, document_end: int | None) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        if spec.train.deterministic:
            torch.use_deterministic_algorithms(True)
        self.plan = plan = resolve_plan(spec, self.device)
        self.module = build(
            spec.model.config,
            spec.train.seed,
            checkpointing=cast(Checkpointing, plan.checkpointing),
            attention=cast(AttentionKind, plan.attention),
            stream=stream_dtype(plan),
            document_end=document_end,
            device=self.device,
        )
        if plan.compiled:
            torch._dynamo.config.recompile_limit = RECOMPILE_LIMIT
            if cache := inductor_cache_dir():
                remove_incomplete(cache)
            for block in self.module.model.layers:
                block.compile(dynamic=False)
        self.loss = resolve_loss(cast(LossKind, plan.loss), compiled=plan.compiled)
        self.parameters = dict(self.module.named_parameters())

    def labels(self) -> dict[str, str]:
        """Return the resolved plan for the start record."""
        plan = self.plan
        return {
            "precision": plan.precision,
            "attention": plan.attention,
            "loss": plan.loss,
            "checkpointing": plan.checkpointing,
            "compile": ("blocks and loss" if plan.loss == "fused" else "blocks") if plan.compiled else "off",
        }

    def to_device(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return inputs and targets, each (sequences, context)."""
        tokens = torch.from_numpy(batch)
        if self.device == "cuda":
            tokens = tokens.pin_memory().to(self.device, non_blocking=True)
        return tokens[:, :-1], tokens[:, 1:]

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> float:
        """Return the loss summed over the tokens of the batch that count."""
        inputs_BT, targets_BT = self.to_device(batch)
        return float(self.loss(self.module, inputs_BT, targets_BT))

    def peak(self) -> int | None:
        """Return the most bytes allocated on the card since the last call; None on a CPU."""
        if self.device == "cpu":
            return None
        peak = torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        return peak

    def capacity(self) -> int:
        """Return the bytes this process can hold on its device: free and reserved memory, within its cap."""
        if self.device == "cpu":
            return host_capacity()
        free, total = torch.cuda.mem_get_info()
        cap = torch.cuda.get_per_process_memory_fraction() * total
        return int(min(free + torch.cuda.memory_reserved(), cap))

    def empty_cache(self) -> None:
        gc.collect()  # reference cycles through an error's frames keep tensors alive
        empty_cache(self.device)

    def allocator_retries(self) -> int:
        return int(torch.cuda.memory_stats().get("num_alloc_retries", 0)) if self.device == "cuda" else 0

    def rng_state(self) -> dict[str, Tensor]:
        state = {"rng/cpu": torch.get_rng_state()}
        if self.device == "cuda":
            state["rng/cuda"] = torch.cuda.get_rng_state()
        return state

    def restore_rng_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the RNG states in ``tensors``. A checkpoint of another backend may have none."""
        if "rng/cpu" in tensors:
            torch.set_rng_state(tensors["rng/cpu"])
        if "rng/cuda" in tensors and self.device == "cuda":
            torch.cuda.set_rng_state(tensors["rng/cuda"])

    def check(self, weights: Mapping[str, Any]) -> None:
        """Raise ``UserError`` where ``weights`` do not have the parameters' names and shapes."""
        for name, parameter in self.parameters.items():
            if name not in weights or weights[name].shape != parameter.shape:
                found = tuple(weights[name].shape) if name in weights else "nothing"
                raise UserError(
                    f"checkpoint: {name} should be {tuple(parameter.shape)} and is {found};"
                    " take the model table of the run that wrote it"
                )


class LossModule(nn.Module):
    """Model and loss as one module, for what wraps modules: DDP and DeepSpeed. Its forward returns the loss."""

    def __init__(self, model: MLATransformer, loss: Loss) -> None:
        super().__init__()
        self.model = model
        self._loss = loss

    def forward(self, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
        return self._loss(self.model, inputs_BT, targets_BT)
