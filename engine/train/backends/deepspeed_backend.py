"""Trains with DeepSpeed ZeRO-2 and the optimizer in host memory (ZeRO-Offload, arXiv:2101.06840).

The device holds the weights (bf16 in a bf16 run) and one micro-batch. Gradients are offloaded to the host as backward
computes them; there DeepSpeedCPUAdam, or Muon beside it, steps each rank's partition of the fp32 masters, and the new
weights are copied back.

The trainer ends the accumulation window (``managed_gradient_accumulation`` is false), so that micro can change between
two steps.
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
from engine.train.backends.finished_work import FinishedWork
from engine.train.backends.host_offload import empty_cache, memory_in_use
from engine.train.backends.ranks import Ranks
from engine.train.backends.torch_model import LossModule, TorchModel
from engine.train.optim.head_muon import is_for_muon
from engine.train.optim.partitioned_muon import MOMENTUM, PartitionedMuon, fragments
from engine.train.optim.stored import dequantized, from_tensors
from engine.train.optim.weight_average import WeightAverage
from engine.train.phases import BACKWARD, FORWARD, IDLE, OPTIMIZER, REDUCE, VALIDATION, Phases
from model.shapes import head_rows
from model.transformer import MLATransformer
from profiles.errors import UserError
from profiles.spec import RunSpec

MOMENTS = ("exp_avg", "exp_avg_sq")
EMA = "ema"  # the average of the weights, which DeepSpeed partitions like a moment


class DeepSpeedBackend:
    """See ``backend.Backend``."""

    can_retry_step = False  # an error in a backward leaves partly reduced gradients, which would corrupt the next step

    def __init__(self, spec: RunSpec, ranks: Ranks, document_end: int | None = None) -> None:
        self._ranks = ranks
        self._torch_model = TorchModel(spec, document_end)
        self.device = self._torch_model.device
        self._parameters: dict[str, Any] = self._torch_model.parameters  # DeepSpeed adds methods to them
        bf16 = self._torch_model.plan.precision == "bf16"
        config = deepspeed_config(spec, bf16=bf16, device=self.device)
        self._engine = _initialize(
            LossModule(self._torch_model.module, self._torch_model.loss), _groups(self._parameters, spec), config
        )
        self._zero = self._engine.optimizer
        self._adam = self._zero.optimizer  # DeepSpeedCPUAdam
        # This rank's partition of the fp32 masters, one flat tensor per parameter group.
        self._partitions: list[Tensor] = list(self._zero.single_partition_of_fp32_groups)
        # DeepSpeed would link parameters to their moments after the first group's first step, and those of the second
        # group to nothing.
        average = (EMA,) if spec.optim.ema else ()
        for group, partition in zip(self._zero.param_groups, self._partitions, strict=True):
            held = {name: torch.zeros_like(partition) for name in (*group["moments"], *average)}
            self._adam.state[partition] = {"step": 0} | held
        # The moments of each parameter.
        self._moments = {name: group["moments"] for group in self._zero.param_groups for name in group["names"]}
        self._average = None
        if spec.optim.ema:
            averages = {n: self._adam.state[partition][EMA] for n, partition in enumerate(self._partitions)}
            self._average = WeightAverage(spec.optim.ema, averages)
        self._zero._lazy_init_hp_params_optimizer_state()
        if spec.optim.name == "muon":
            names = {parameter: name for name, parameter in self._parameters.items()}
            matrices = fragments(self._zero.bit16_groups[0], names, ranks.all_reduce)
            rows = head_rows(spec.model.config)
            self._zero.optimizer = PartitionedMuon(self._adam, matrices, rows, self.device, ranks.all_reduce)
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self._work = FinishedWork(self.device)
        self.plan = {
            "backend": "deepspeed",
            **self._torch_model.labels(),
            "optimizer": "muon per head + DeepSpeedCPUAdam" if spec.optim.name == "muon" else "DeepSpeedCPUAdam",
            "strategy": f"offload (ZeRO-2, {ranks.size} rank{'s' if ranks.size > 1 else ''})",
        }
        self.versions = {"torch": torch.__version__, "numpy": np.__version__, "deepspeed": version("deepspeed")}
        self.phases = Phases()

    def accumulate(self, batch: Batch, step_tokens: int, last: bool) -> None:
        self.phases.enter(FORWARD)
        loss = self._engine(*self._torch_model.to_device(batch)) / step_tokens
        self.phases.enter(BACKWARD)
        # DeepSpeed averages over ranks, but a step's loss is the sum over all its tokens.
        self._engine.backward(loss * self._ranks.size, scale_wrt_gas=False)
        self._loss_sum += loss.detach()
        self._work.launched()

    def finished(self) -> int:
        return self._work.count()

    def window_totals(self) -> tuple[float, float]:
        self.phases.enter(REDUCE)
        self._ranks.all_reduce(self._loss_sum)
        self._zero.finalize_gradient_accumulation_boundary()
        norm = float(self._zero.scaled_global_norm())
        return float(self._loss_sum), norm if norm >= 0 else float("nan")  # DeepSpeed returns -1 for inf and nan

    def optimizer_step(self, lr: float, clip: float) -> None:
        self.phases.enter(OPTIMIZER)
        for group in self._zero.param_groups:
            group["lr"] = lr * group["lr_scale"]
        self._zero.clip_grad = clip
        self._zero.step()
        if self._average:
            self._average.add_step(dict(enumerate(self._partitions)))
        self.discard_window()
        self.phases.enter(IDLE)

    def discard_window(self) -> None:
        # A step leaves these too. The sums on the host need no clearing: the next first micro-batch overwrites them.
        self._zero.zero_grad()
        self._zero.reset_cpu_buffers()
        self._zero.micro_step_id = -1
        self._zero._offload_accumulated_param_ids = set()
        self._loss_sum.zero_()
        self._work.clear()

    def evaluate(self, batch: Batch) -> float:
        self.phases.enter(VALIDATION)
        loss = self._torch_model.evaluate(batch)
        self.phases.enter(IDLE)
        return loss

    def torch_model(self) -> MLATransformer:
        return self._torch_model.module

    def device_peak(self) -> int | None:
        return self._torch_model.peak()

    def capacity(self) -> int:
        return self._torch_model.capacity()

    def host_states(self) -> int:
        tensors = [
            *self._partitions,
            *(partition.grad for partition in self._partitions if partition.grad is not None),
            *(
                self._adam.state[partition][moment]
                for group, partition in zip(self._zero.param_groups, self._partitions, strict=True)
                for moment in group["moments"]
            ),
            *(self._average.tensors.values() if self._average else ()),
            *self._zero.accumulated_grads_in_cpu.values(),
        ]
        one_rank: int = sum(tensor.nbytes for tensor in tensors)
        return one_rank * self._ranks.local_size  # partitions have one size

    def unified_memory(self) -> dict[str, int]:
        return {}

    def empty_cache(self) -> None:
        self._torch_model.empty_cache()

    def allocator_retries(self) -> int:
        return self._torch_model.allocator_retries()

    def offload_for_pause(self) -> int:
        before = memory_in_use(self.device)
        empty_cache(self.device)  # the weights are views of DeepSpeed's buffers: they stay on the device
        return max(0, before - memory_in_use(self.device))

    def restore_after_pause(self) -> None:
        pass

    def state_dict(self) -> State:
        optimizer = self._torch_model.rng_state()
        if step := self._adam.state[self._partitions[-1]]["step"]:
            for name, moments in self._moments.items():
                optimizer |= {f"{each}/{name}": self._full_tensor(self._parameters[name], each) for each in moments}
            optimizer["step"] = torch.tensor([float(step)])
        model = {name: self._full_tensor(p, None) for name, p in self._parameters.items()}
        state = {"model": model, "optimizer": optimizer}
        if self._average and self._average.exists:
            optimizer |= self._average.step_tensor()
            state["ema"] = {name: self._full_tensor(p, EMA) for name, p in self._parameters.items()}
        return state

    def load_state_dict(self, state: State) -> None:
        self.load_weights(state["model"])
        optimizer = state["optimizer"]
        self._torch_model.restore_rng_state(optimizer)
        if "step" not in optimizer:
            return
        step = int(optimizer["step"])
        for partition in self._partitions:
            self._adam.state[partition]["step"] = step
        self._advance_adam(step)
        for name, moments in self._moments.items():
            for moment in moments:
                stored = from_tensors(moment, name, optimizer)
                if stored is None:
                    raise UserError(
                        f"checkpoint: has no {moment} of {name}: another optimizer wrote it;"
                        " resume with that run's optim.name, or start from its weights with --init-from"
                    )
                self._parameters[name].set_full_hp_param(dequantized(stored), moment)
        if self._average and self._average.load_steps(optimizer):
            for name, parameter in self._parameters.items():
                parameter.set_full_hp_param(state["ema"][name], EMA)

    def _advance_adam(self, step: int) -> None:
        """Run DeepSpeed's Adam up to ``step`` on dummy tensors, a microsecond each.

        It computes its powers of beta by repeated multiplication, and an fp32 power computed at once differs.
        """
        adam, dummies = self._adam, [torch.zeros(1) for _ in range(4)]
        beta1, beta2 = adam.param_groups[0]["betas"]
        for n in range(1, step + 1):
            adam.ds_opt_adam.adam_update(adam.opt_id, n, 0.0, beta1, beta2, 1.0, 0.0, True, *dummies)

    def load_weights(self, weights: dict[str, Any]) -> None:
        self._torch_model.check(weights)
        for name, parameter in self._parameters.items():
            parameter.set_full_hp_param(weights[name].to(torch.float32))
        self._zero.update_lp_params()  # copies the masters to the device

    def _full_tensor(self, parameter: Any, moment: str | None) -> Tensor:
        """Return the fp32 master (or a moment) of ``parameter`` on the host; a view where one rank holds all of it.

        With several ranks, all gather it and only rank 0 keeps it.
        """
        if self._ranks.size == 1:
            fragment: Tensor = parameter._hp_mapping.get_hp_fragment(moment).detach()
            return fragment.view(parameter.shape)
        gathered: Tensor = parameter.get_full_hp_param(moment)
        return gathered.cpu() if self._ranks.rank == 0 else gathered.new_empty(0)


def _groups(parameters: dict[str, nn.Parameter], spec: RunSpec) -> list[dict[str, Any]]:
    """Return the parameter groups: Muon's matrices, if it is used, other matrices, which decay too, and norm scales.

    A group has the ``names`` of its parameters, their ``moments``, and what multiplies their learning rate.
    """
    muon = [n for n, p in parameters.items() if spec.optim.name == "muon" and is_for_muon(n, p)]
    matrices = [n for n, p in parameters.items() if p.dim() > 1 and n not in muon]
    scales = [n for n, p in parameters.items() if p.dim() <= 1]
    decay = spec.optim.weight_decay
    groups = [(muon, decay, (MOMENTUM,), spec.optim.muon_scale), (matrices, decay, MOMENTS, 1.0)]
    return [
        {
            "params": [parameters[name] for name in names],
            "names": names,
            "weight_decay": weight_decay,
            "moments": moments,
            "lr_scale": scale,
        }
        for names, weight_decay, moments, scale in (*groups, (scales, 0.0, MOMENTS, 1.0))
        if names
    ]


def _initialize(module: nn.Module, groups: list[dict[str, Any]], config: dict[str, Any]) -> Any:
    """Return DeepSpeed's engine. Raises ``UserError`` where its optimizer cannot be built."""
    os.environ.setdefault("LOCAL_RANK", "0")
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    import deepspeed

    # This op is for inference only; every run on a CPU would build it and initialize it in shared memory.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if not distributed.is_initialized():  # DeepSpeed needs a process group, even for one rank
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        store = distributed.HashStore()  # type: ignore[attr-defined]
        distributed.init_process_group(backend, store=store, rank=0, world_size=1)
    if torch.cuda.is_available():
        # DeepSpeed asks NVML, and reads CUDA_VISIBLE_DEVICES as numbers; ``prepare_cuda`` has put UUIDs there.
        accelerator = deepspeed.accelerator.get_accelerator()
        accelerator.available_memory = lambda device_index=None: torch.cuda.mem_get_info(device_index)[0]
    deepspeed.init_distributed(verbose=False)
    load_cpu_adam()
    engine, _, _, _ = deepspeed.initialize(model=module, model_parameters=groups, config=config)
    return engine
