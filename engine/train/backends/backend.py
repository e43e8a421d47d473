"""Defines the interface between the training loop and the code that computes (torch, DeepSpeed, MLX)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from engine.train.phases import Phases

if TYPE_CHECKING:
    from model.transformer import MLATransformer

State = dict[str, dict[str, Any]]  # every tensor of a checkpoint, by file and name
Batch = npt.NDArray[np.int64]  # (sequences, context + 1): inputs are [:, :-1], targets [:, 1:]


class Backend(Protocol):
    """A model with its optimizer. The micro-batches between two ``optimizer_step`` calls are one accumulation window.

    With several ranks, each has a backend and its part of the batch. ``window_totals``, ``optimizer_step``,
    ``state_dict`` and ``load_state_dict`` are collective: all ranks call them, and the results are those of all ranks.
    """

    plan: dict[str, str]  # the chosen kernel, loss, attention, optimizer …, for the start record
    device: str
    versions: dict[str, str]
    phases: Phases  # forward, backward, reduce, optimizer, validation: entered before the work begins

    can_retry_step: bool  # whether ``discard_window`` removes every trace of a window in which an error was raised

    def accumulate(self, batch: Batch, step_tokens: int, last: bool) -> None:
        """Run forward and backward of one micro-batch. Its loss is divided by the ``step_tokens`` of the whole step
        that count.

        ``last``: it is the window's last, after which its gradients are complete.
        """

    def finished(self) -> int:
        """Return how many micro-batches of the window the device has finished, without waiting for it."""

    def window_totals(self) -> tuple[float, float]:
        """Return the window's loss (mean over its tokens that count) and gradient norm (before clipping)."""

    def optimizer_step(self, lr: float, clip: float) -> None:
        """Step on the window's gradients and end the window. ``clip``: the largest norm; 0 does not clip."""

    def discard_window(self) -> None:
        """Drop the window's gradients and loss."""

    def evaluate(self, batch: Batch) -> float:
        """Return the loss summed over the tokens of the batch that count, without gradients."""

    def torch_model(self) -> MLATransformer | None:
        """Return the model with its current weights, whole on every rank; None where it is not one of torch."""

    def device_peak(self) -> int | None:
        """Return the most bytes allocated on the device since the last call; None without its own device."""

    def capacity(self) -> int:
        """Return the bytes this process can hold on its device, its own included; of host memory on a CPU."""

    def host_states(self) -> int:
        """Return the bytes of optimizer states offloaded to host memory."""

    def unified_memory(self) -> dict[str, int]:
        """Return the bytes of unified memory for the step record; empty where device and host memory are separate.

        Keys: ``unified_active``, ``unified_cache`` (kept for later use), ``unified_peak`` and ``unified_limit``.
        """

    def empty_cache(self) -> None:
        """Free the memory that the allocators cache."""

    def allocator_retries(self) -> int:
        """Return how often the allocator has emptied its cache to satisfy an allocation."""

    def offload_for_pause(self) -> int:
        """Free the memory that a paused run does not need; return the bytes freed. Works inside a window too.

        Until ``restore_after_pause`` only ``discard_window`` and ``state_dict`` may be called.
        """

    def restore_after_pause(self) -> None:
        """Undo ``offload_for_pause`` exactly. Raises ``UserError`` where memory is short; call it again later."""

    def state_dict(self) -> State:
        """Return every tensor of a checkpoint by file: ``{"model": {name: tensor}, "optimizer": {…}}``.

        Only rank 0's is complete. Where one rank holds everything, the tensors are not copied: ``optimizer_step`` and
        ``load_state_dict`` change them. State that other calls change, such as the RNG's, is a copy.
        """

    def load_state_dict(self, state: State) -> None:
        """Load what ``state_dict`` returned. Raises ``UserError`` where it belongs to another model."""

    def load_weights(self, weights: dict[str, Any]) -> None:
        """Load the weights alone. Raises ``UserError`` where they belong to another model."""
