"""Defines the tables of a spec besides ``model`` and ``optim``: each key with its default, allowed values and meaning.

docs/reference/spec.md is made of the comments above and beside the fields: make reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from profiles.fields import choice, number

LOWER_PRECISION = ("states8bit", "bf16_sr")  # 8-bit moments; bf16 weights without fp32 masters
BACKENDS = ("torch", "deepspeed", "mlx")


@dataclass(frozen=True, slots=True)
class DataTable:
    """The phases below ``root`` that a run reads: ``phase``, or several ``sources`` with their weights."""

    root: str = "data/shards"  # folder of the packed data
    phase: str = "phase1"  # folder below root that is read
    # in place of phase: {name = weight, …}; weights are relative: how many of the sequences are from each source
    sources: Mapping[str, float] = field(default_factory=dict)
    workers: int = number(4, 0, 256, "threads")  # read the next step's sequences during a step; 0: none
    # what a token attends to in a packed sequence: join: all before it; mask: those of its own document, which ends
    # with the eot_id of dataset.json; then the first token of a document is not predicted from the one before
    documents: str = choice("join", "mask")


@dataclass(frozen=True, slots=True)
class BatchTable:
    """``sequences`` of ``context`` tokens per optimizer step, ``micro`` of them per micro-batch on each rank."""

    sequences: int = number(8, 1, 1 << 20, "sequences")  # of an optimizer step, over all ranks
    # of a micro-batch on each rank; less needs less memory; "auto": chosen at launch, the fastest that should fit
    micro: int = number(8, 1, 4096, "sequences")
    context: int = number(256, 1, 1 << 20, "tokens")  # of a sequence


@dataclass(frozen=True, slots=True)
class TrainTable:
    """How long a run trains, in which precision, and what it does every so many steps."""

    steps: int = number(1000, 1, 10**9, "steps")  # optimizer steps; the learning rate's schedule ends with them
    seed: int = number(1, 0, 2**31 - 1)  # of the first weights, the order of the data and stochastic rounding
    # bf16: with fp32 master weights; bf16_sr: bf16 weights with stochastic rounding, no fp32 master weights;
    # auto: bf16 where the device runs it at full speed
    precision: str = choice("auto", "fp32", "bf16", "bf16_sr")
    compile: str = choice("auto", "on", "off")  # torch.compile of the blocks; auto: where a compiler works
    attention: str = choice("auto", "sdpa", "blocked")  # sdpa: torch's kernels; blocked: for CPUs; auto: the faster
    deterministic: bool = False  # only kernels that give the same bits each time; slower
    val_every: int = number(500, 0, 10**9, "steps")  # measure the validation loss; 0: never
    val_sequences: int = number(64, 1, 1 << 20, "sequences")  # that a validation reads at most
    save_every: int = number(1000, 0, 10**9, "steps")  # save a checkpoint; 0: only at the end
    keep: int = number(3, 1, 10**6, "checkpoints")  # the newest ones; older ones are deleted, except the best
    stop_step: int = number(0, 0, 10**9, "steps")  # end early without changing the schedule; 0: at the last step
    # if a loss or gradient is not finite: stop, or go back to the newest checkpoint and skip the data
    on_nan: str = choice("stop", "rewind")
    sample_every: int = number(0, 0, 10**9, "steps")  # generate text from each of sample_prompts; 0: never
    sample_prompts: tuple[str, ...] = ("",)  # an empty one begins like a document
    sample_tokens: int = number(64, 1, 4096, "tokens")  # of a prompt's text at most
    sample_seconds: float = number(20.0, 0.1, 3600, "seconds")  # that all the texts of a step may take
    eval_every: int = number(0, 0, 10**9, "steps")  # score the questions of eval_tasks; 0: never
    eval_tasks: tuple[str, ...] = ()  # files of JSON lines, as for mla-tui eval --tasks
    eval_seconds: float = number(60.0, 0.1, 86400, "seconds")  # that all the questions of a step may take
    keep_best: str = choice("val_loss", "eval_acc")  # by which a checkpoint is kept besides the newest
    out: str = "models"  # folder of the checkpoints, in a folder with the name of the run

    @property
    def last_step(self) -> int:
        """The step at which a run ends: ``stop_step``, or the last of its schedule."""
        return min(self.steps, self.stop_step or self.steps)


@dataclass(frozen=True, slots=True)
class MemoryTable:
    """What a run keeps in memory, and what it does when there is not enough."""

    # where moments and masters are: device; states8bit: there, AdamW's moments in 8 bits; offload: in host memory, by
    # DeepSpeed; auto: the fastest that fits
    strategy: str = choice("auto", "device", "states8bit", "offload")
    # of activations: each of none, selective, full and offload keeps less on the device and computes or copies more;
    # auto: the fastest that fits
    checkpointing: str = choice("auto", "none", "selective", "full", "offload")
    loss: str = choice("fused", "plain")  # fused: the logits never exist in full
    # when memory runs out: auto: do the step again with a smaller micro-batch; ask: pause for an answer; fail: end
    oom: str = choice("auto", "ask", "fail")
    oom_wait: int = number(600, 1, 10**6, "seconds")  # that ask waits for an answer before it acts as auto
    # lower precision of masters and moments that "auto" may choose; without it both stay fp32
    allow: tuple[str, ...] = field(default=(), metadata={"each": LOWER_PRECISION})
    vram: float = number(0.0, 0, 1e6, "GiB")  # of the GPU that the profile is made for; 0: it needs none


@dataclass(frozen=True, slots=True)
class LaunchTable:
    """With which backend a run trains, and on how many devices."""

    backend: str = choice("auto", *BACKENDS)  # auto: mlx on Apple Silicon, deepspeed for offload, else torch
    launcher: str = choice("auto", "torchrun", "deepspeed", "slurm")  # what starts the ranks, if there are several
    nodes: int = number(1, 1, 4096)  # machines
    gpus_per_node: int = number(1, 1, 64)  # ranks on each machine
    hosts: str = ""  # of several nodes: comma-separated names, this machine first
    port: int = number(29500, 1, 65535)  # rendezvous port for several nodes, on the first host
    deepspeed_config: str = ""  # path of a DeepSpeed JSON file
