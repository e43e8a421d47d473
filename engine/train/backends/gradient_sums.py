"""Sums the gradients of several ranks.

``OverlappedSums`` sums while the last backward of a step still runs, in torch's DistributedDataParallel, whose buckets
hold the gradients. It takes them in the dtype of the parameters alone; bf16 weights accumulate in fp32, so theirs are
summed after the backward, in buckets too (``SumsAfterBackward``).
"""

# No postponed annotations here: DDP checks those of its hook.
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import Protocol

import torch
from torch import Tensor, nn

from engine.train.backends.ranks import Ranks
from engine.train.backends.torch_model import LossModule
from model.loss import Loss
from model.transformer import MLATransformer

BUCKET_BYTES = 25 << 20  # of a collective: long enough for the bandwidth, short enough to overlap; DDP's default


class GradientSums(Protocol):
    """What a step does between its forwards and the norm of its gradients."""

    def loss(self, inputs_BT: Tensor, targets_BT: Tensor, last: bool) -> Tensor:
        """Return the loss of a micro-batch; the backward of the ``last`` completes the gradients of the step."""

    def finish(self) -> None:
        """Return when the gradients are those of all ranks, on every rank."""


def gradient_sums(model: MLATransformer, loss: Loss, ranks: Ranks) -> GradientSums:
    """Return the way to sum the gradients of ``model``, whose parameters are on the device and have their dtype."""
    if ranks.size == 1:
        return OwnGradients(model, loss)
    if all(parameter.dtype == torch.float32 for parameter in model.parameters()):
        return OverlappedSums(model, loss)
    return SumsAfterBackward(model, loss, ranks)


class OwnGradients:
    """The gradients of the only rank."""

    def __init__(self, model: MLATransformer, loss: Loss) -> None:
        self._model = model
        self._loss = loss

    def loss(self, inputs_BT: Tensor, targets_BT: Tensor, last: bool) -> Tensor:
        return self._loss(self._model, inputs_BT, targets_BT)

    def finish(self) -> None:
        pass


class SumsAfterBackward(OwnGradients):
    def __init__(self, model: MLATransformer, loss: Loss, ranks: Ranks) -> None:
        super().__init__(model, loss)
        self._ranks = ranks

    def finish(self) -> None:
        for bucket in _buckets(p.grad for p in self._model.parameters() if p.grad is not None):
            summed = torch.cat([gradient.flatten() for gradient in bucket])
            self._ranks.all_reduce(summed)
            for gradient, part in zip(bucket, torch.split(summed, [g.numel() for g in bucket]), strict=True):
                gradient.copy_(part.view_as(gradient))


class OverlappedSums:
    def __init__(self, model: MLATransformer, loss: Loss) -> None:
        self._parallel = nn.parallel.DistributedDataParallel(
            LossModule(model, loss),
            bucket_cap_mb=BUCKET_BYTES >> 20,
            gradient_as_bucket_view=True,  # else the gradients are there twice
            init_sync=False,  # every rank has drawn or loaded the same weights
        )
        self._parallel.register_comm_hook(None, _sum)

    def loss(self, inputs_BT: Tensor, targets_BT: Tensor, last: bool) -> Tensor:
        with nullcontext() if last else self._parallel.no_sync():
            loss: Tensor = self._parallel(inputs_BT, targets_BT)
        return loss

    def finish(self) -> None:
        pass  # the backward has waited for its last bucket


def _sum(_: object, bucket: torch.distributed.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]
    """Sum a bucket over all ranks. By default DDP divides by their number; our losses are divided by all tokens."""
    work = torch.distributed.all_reduce(bucket.buffer(), async_op=True)
    summed: torch.futures.Future[Tensor] = work.get_future().then(lambda done: done.value()[0])
    return summed


def _buckets(gradients: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Group ``gradients`` of one dtype after another into buckets of at most ``BUCKET_BYTES``, or one larger tensor."""
    open_buckets: dict[torch.dtype, list[Tensor]] = {}
    for gradient in gradients:
        bucket = open_buckets.setdefault(gradient.dtype, [])
        if bucket and sum(g.nbytes for g in bucket) + gradient.nbytes > BUCKET_BYTES:
            yield bucket
            bucket = open_buckets[gradient.dtype] = []
        bucket.append(gradient)
    yield from filter(None, open_buckets.values())
