"""DeepSpeed ZeRO-2 with the optimizer in host memory (arXiv:2101.06840): weights and a micro-batch on the device.

The device holds the weights (bf16 where the run is) and works out gradients, which leave for the host as they come;
there DeepSpeedCPUAdam steps fp32 masters, each rank its part of them, and the new weights go back.

The end of a window is the trainer's (``managed_gradient_accumulation`` false): micro can change between two steps.
"""

from __future__ import annotations

import logging
import os
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn

from engine.execution.deepspeed_config import deepspeed_config
from engine.train.backends.backend import Batch, State
from engine.train.backends.cpu_adam import load_cpu_adam
from engine.train.backends.host_offload import empty_cache, held
from engine.train.backends.ranks import Ranks
from engine.train.backends.torch_model import TorchModel
from engine.train.optim.stored import from_tensors, unpacked
from engine.train.phases import BACKWARD, FORWARD, IDLE, OPTIMIZER, REDUCE, VALIDATION, Phases
from model.loss import Loss
from profiles.errors import UserError
from profiles.spec import RunSpec

MOMENTS = ("exp_avg", "exp_avg_sq")


class DeepSpeedBackend:
    """See ``engine.train.backends.backend.Backend``."""

    can_retry_step = (
        False  # an error in a backward leaves half-reduced gradients, of which a next one makes wrong weights
    )

    def __init__(self, spec: RunSpec, ranks: Ranks) -> None:
        self._ranks = ranks
        self._run = TorchModel(spec)
        self.device = self._run.device
        self._parameters: dict[str, Any] = self._run.parameters  # DeepSpeed hangs methods of its own on them
        bf16 = self._run.plan.precision == "bf16"
        config = deepspeed_config(spec, bf16=bf16, device=self.device)
        self._engine = _initialize(_Step(self._run.module, self._run.loss), _groups(self._parameters, spec), config)
        self._zero = self._engine.optimizer
        self._adam = self._zero.optimizer
        # This rank's part of the fp32 masters, one flat tensor for each group.
        self._parts: list[Tensor] = list(self._zero.single_partition_of_fp32_groups)
        # Left to itself DeepSpeed links parameters to their moments after the first group's first step, and those of
        # the second group to nothing.
        for part in self._parts:
            self._adam.state[part] = {"step": 0} | {moment: torch.zeros_like(part) for moment in MOMENTS}
        self._zero._lazy_init_hp_params_optimizer_state()
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self.plan = {
            "backend": "deepspeed",
            **self._run.labels(),
            "optimizer": "DeepSpeedCPUAdam",
            "strategy": f"offload (ZeRO-2, {ranks.size} rank{'s' if ranks.size > 1 else ''})",
        }
        self.versions = {"torch": torch.__version__, "numpy": np.__version__, "deepspeed": version("deepspeed")}
        self.phases = Phases()

    def accumulate(self, batch: Batch, step_tokens: int) -> None:
        self.phases.enter(FORWARD)
        loss = self._engine(*self._run.to_device(batch)) / step_tokens
        self.phases.enter(BACKWARD)
        # DeepSpeed takes the mean over ranks, but a step's loss is one sum of all its tokens.
        self._engine.backward(loss * self._ranks.size, scale_wrt_gas=False)
        self._loss_sum += loss.detach()

    def window_totals(self) -> tuple[float, float]:
        self.phases.enter(REDUCE)
        self._ranks.all_reduce(self._loss_sum)
        self._zero.finalize_gradient_accumulation_boundary()
        norm = float(self._zero.scaled_global_norm())
        return float(self._loss_sum), norm if norm >= 0 else float("nan")  # -1 stands for inf and nan

    def optimizer_step(self, lr: float, clip: float) -> None:
        self.phases.enter(OPTIMIZER)
        for group in self._zero.param_groups:
            group["lr"] = lr
        self._zero.clip_grad = clip
        self._zero.step()
        self.discard_window()
        self.phases.enter(IDLE)

    def discard_window(self) -> None:
        # What a step leaves behind too. Sums on the host are not cleared: the first micro-batch writes over them.
        self._zero.zero_grad()
        self._zero.reset_cpu_buffers()
        self._zero.micro_step_id = -1
        self._zero._offload_accumulated_param_ids = set()
        self._loss_sum.zero_()

    def evaluate(self, batch: Batch) -> float:
        self.phases.enter(VALIDATION)
        loss = self._run.evaluate(batch)
        self.phases.enter(IDLE)
        return loss

    def device_peak(self) -> int | None:
        return self._run.peak()

    def capacity(self) -> int:
        return self._run.capacity()

    def host_states(self) -> int:
        held = [
            *self._parts,
            *(part.grad for part in self._parts if part.grad is not None),
            *(self._adam.state[part][moment] for part in self._parts for moment in MOMENTS),
            *self._zero.accumulated_grads_in_cpu.values(),
        ]
        own: int = sum(tensor.nbytes for tensor in held)
        return own * self._ranks.local_size  # parts are of one size

    def unified_memory(self) -> dict[str, int]:
        return {}

    def empty_cache(self) -> None:
        self._run.empty_cache()

    def allocator_retries(self) -> int:
        return self._run.allocator_retries()

    def offload_for_pause(self) -> int:
        before = held(self.device)
        empty_cache(self.device)  # its weights are parts of buffers of DeepSpeed's own: they stay
        return max(0, before - held(self.device))

    def restore_after_pause(self) -> None:
        pass

    def state_dict(self) -> State:
        optimizer = self._run.rng_state()
        if step := self._adam.state[self._parts[0]]["step"]:
            for moment in MOMENTS:
                optimizer |= {f"{moment}/{name}": self._whole(p, moment) for name, p in self._parameters.items()}
            optimizer["step"] = torch.tensor([float(step)])
        return {"model": {name: self._whole(p, None) for name, p in self._parameters.items()}, "optimizer": optimizer}

    def load_state_dict(self, state: State) -> None:
        self.load_weights(state["model"])
        optimizer = state["optimizer"]
        self._run.restore_rng_state(optimizer)
        if "step" not in optimizer:
            return
        step = int(optimizer["step"])
        for part in self._parts:
            self._adam.state[part]["step"] = step
        self._replay(step)
        for moment in MOMENTS:
            for name, parameter in self._parameters.items():
                stored = from_tensors(moment, name, optimizer)
                if stored is None:
                    raise UserError(
                        f"checkpoint: holds no {moment} of {name}: another optimizer wrote it;"
                        " go on with that run's optim.name, or start from its weights with --init-from"
                    )
                parameter.set_full_hp_param(unpacked(stored), moment)

    def _replay(self, step: int) -> None:
        """Let DeepSpeed's Adam count to ``step`` on nothing: it multiplies its powers of beta up from step to step, and
        in fp32 a power taken at once is another number. A microsecond each."""
        adam, nothing = self._adam, [torch.zeros(1) for _ in range(4)]
        beta1, beta2 = adam.param_groups[0]["betas"]
        for n in range(1, step + 1):
            adam.ds_opt_adam.adam_update(adam.opt_id, n, 0.0, beta1, beta2, 1.0, 0.0, True, *nothing)

    def load_weights(self, weights: dict[str, Any]) -> None:
        self._run.check(weights)
        for name, parameter in self._parameters.items():
            parameter.set_full_hp_param(weights[name].to(torch.float32))
        self._zero.update_lp_params()  # and from the masters to the device

    def _whole(self, parameter: Any, moment: str | None) -> Tensor:
        """The master (or a moment) of ``parameter``, on the host: a view where one rank holds all of it.

        Of several ranks only the first keeps what all have gathered.
        """
        if self._ranks.size == 1:
            fragment: Tensor = parameter._hp_mapping.get_hp_fragment(moment).detach()
            return fragment.view(parameter.shape)
        whole: Tensor = parameter.get_full_hp_param(moment)
        return whole.cpu() if self._ranks.rank == 0 else whole.new_empty(0)


class _Step(nn.Module):
    """Model and loss as the one module that DeepSpeed wants to see called."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model = model
        self._loss = loss

    def forward(self, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
        return self._loss(self.model, inputs_BT, targets_BT)  # type: ignore[arg-type]


def _groups(parameters: dict[str, nn.Parameter], spec: RunSpec) -> list[dict[str, Any]]:
    """Decay is for matrices, never for norm scales."""
    matrices = [p for p in parameters.values() if p.dim() > 1]
    scales = [p for p in parameters.values() if p.dim() <= 1]
    return [{"params": matrices, "weight_decay": spec.optim.weight_decay}, {"params": scales, "weight_decay": 0.0}]


def _initialize(module: nn.Module, groups: list[dict[str, Any]], config: dict[str, Any]) -> Any:
    """DeepSpeed's engine. Raises ``UserError`` where its optimizer cannot be built."""
    os.environ.setdefault("LOCAL_RANK", "0")
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    import deepspeed

    # For inference alone, and it would be built and initialised in shared memory by every run on a CPU.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if not distributed.is_initialized():  # it wants a group, be it of one
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        store = distributed.HashStore()  # type: ignore[attr-defined]
        distributed.init_process_group(backend, store=store, rank=0, world_size=1)
    deepspeed.init_distributed(verbose=False)
    load_cpu_adam()
    engine, _, _, _ = deepspeed.initialize(model=module, model_parameters=groups, config=config)
    return engine
