"""What the loop asks of whatever does the arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

State = dict[str, dict[str, Any]]  # of a checkpoint: every tensor by file and name
Batch = npt.NDArray[np.int64]  # (sequences, context + 1): inputs are [:, :-1], targets [:, 1:]


class Backend(Protocol):
    """One model with its optimizer. Between two ``apply`` calls lies one accumulation window.

    Where a run has several ranks each has a backend on its share of the batch: ``totals``, ``apply``, ``state`` and
    ``restore`` are called on all of them at once and speak of all ranks together.
    """

    plan: dict[str, str]  # which kernel, loss, attention, optimizer were chosen, for the start record
    device: str
    versions: dict[str, str]
    lap: Callable[[str], None]  # called at the end of "forward", "backward" and "optimizer"; only a benchmark listens

    redoes: bool  # whether ``discard`` leaves nothing of a window in which an error was raised

    def accumulate(self, batch: Batch, step_tokens: int) -> None:
        """Forward and backward of one micro-batch; its loss counts by its share of the ``step_tokens`` of the step."""

    def totals(self) -> tuple[float, float]:
        """Loss (mean over the window's tokens) and gradient norm (before clipping) of the window so far."""

    def apply(self, lr: float, clip: float) -> None:
        """One optimizer step on the window's gradients (norm clipped to ``clip``; 0: as they are); ends the window."""

    def discard(self) -> None:
        """Throw the window away: nothing of it is left in gradients or sums."""

    def evaluate(self, batch: Batch) -> float:
        """Summed loss over the batch's tokens, no gradients."""

    def device_peak(self) -> int | None:
        """The most bytes allocated on the device since the last call; None where there is no device of its own."""

    def capacity(self) -> int:
        """Bytes that this process could hold on its device in all, with what it holds; of host memory on a CPU."""

    def host_states(self) -> int:
        """Bytes held in RAM for optimizer states offloaded from the device."""

    def unified(self) -> dict[str, int]:
        """Where device and host are one memory, its bytes for the step record; empty elsewhere.

        ``unified_active``, ``unified_cache`` (kept for later use), ``unified_peak`` and ``unified_limit``.
        """

    def trim(self) -> None:
        """Give back what an allocator keeps for later use."""

    def retries(self) -> int:
        """How often the allocator has had to empty its cache to find room, so far."""

    def release(self) -> int:
        """Give back the memory a paused run can do without, within a window or not; the bytes that came free.

        Until ``reclaim`` only ``discard`` and ``state`` may follow.
        """

    def reclaim(self) -> None:
        """Undo ``release``, to the bit. Raises ``UserError`` where there is no room any more; it may be tried again."""

    def state(self) -> State:
        """Every tensor a checkpoint needs, by file: ``{"model": {name: tensor}, "optimizer": {…}}``; rank 0's is
        whole. Where one rank holds it all the tensors are its own, which ``apply`` and ``restore`` change;
        what other calls change too, such as the state of random numbers, is a copy."""

    def restore(self, state: State) -> None:
        """Take ``state`` back. Raises ``UserError`` where it belongs to another model."""

    def restore_weights(self, weights: dict[str, Any]) -> None:
        """Take only the weights. Raises ``UserError`` where they belong to another model."""
