"""Defines the ``optim`` table of a spec, and what its values mean for one another."""

from __future__ import annotations

from dataclasses import dataclass

from profiles.fields import choice, number

NOW = "now"  # the value of ``decay`` in a live edit that begins the decay at the next step


@dataclass(frozen=True, slots=True)
class OptimTable:
    """The optimizer and the learning rate over the steps."""

    name: str = choice("adamw", "muon")  # muon: for the matrices of the blocks, adamw for the rest
    lr: float = number(3e-4, 0, 10)  # peak learning rate
    muon_lr: float = number(0.0, 0, 10)  # peak rate of Muon's matrices, on the same schedule; 0: lr
    # what follows the warm-up: cosine: half a cosine to final_lr; linear: a line to zero; wsd: lr until the last
    # decay steps, which go to final_lr
    schedule: str = choice("cosine", "linear", "wsd")
    warmup: int = number(2000, 0, 10**9, "steps")  # in which the rate rises to lr
    decay: float = number(0.2, 0, 10**9, "steps")  # of wsd; below 1 a share of train.steps
    final_lr: float = number(3e-5, 0, 10)  # rate at the last step
    beta1: float = number(0.9, 0, 0.99999)  # decay of AdamW's first moment
    beta2: float = number(0.95, 0, 0.9999999)  # decay of AdamW's second moment
    eps: float = number(1e-8, 1e-30, 1)  # added to the root of the second moment
    weight_decay: float = number(0.1, 0, 10)  # of matrices; the scales of norms have none
    clip: float = number(1.0, 0, 1e9)  # norm that the gradient is scaled down to; 0: no clipping
    # decay per step of an exponential moving average of the weights, kept in host memory: 0.999 averages over about the
    # last 1000 steps; 0: none
    ema: float = number(0.0, 0, 0.999999)
    lr_scale: float = number(1.0, 0, 1000)  # multiplies the scheduled rate

    @property
    def muon_scale(self) -> float:
        """What the learning rate is multiplied by for the matrices that Muon steps."""
        return self.muon_lr / self.lr if self.muon_lr and self.lr else 1.0

    def decay_start(self, steps: int) -> int:
        """Return the last step at the peak rate, from which the rate falls until step ``steps``."""
        if self.schedule != "wsd":
            return min(self.warmup, steps)
        return min(steps, max(self.warmup, steps - self.decay_steps(steps)))

    def decay_steps(self, steps: int) -> int:
        """Return the length of wsd's decay in a run of ``steps``."""
        return round(self.decay * steps) if self.decay < 1 else int(self.decay)

    def conflict(self, steps: int) -> tuple[str, str] | None:
        """Return the key and the message of what cannot be in a run of ``steps``, or None."""
        if self.final_lr > self.lr:
            return "final_lr", f"{self.final_lr:g} is above optim.lr = {self.lr:g}"
        if self.muon_lr and self.name != "muon":
            return "muon_lr", f"{self.muon_lr:g} is for optim.name = muon, not {self.name}; use that, or 0"
        if self.decay >= 1 and self.decay != int(self.decay):
            return "decay", f"{self.decay:g} is neither a share of the steps below 1 nor a whole number of steps"
        if self.schedule == "wsd" and self.decay_steps(steps) > steps:
            return "decay", f"{self.decay:g} steps of decay are more than train.steps = {steps}; use fewer, or a share"
        return None
