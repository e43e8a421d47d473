"""Computes how likely a model finds texts: the log-probability of tokens after others, in batches of similar length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from model.transformer import MLATransformer

BATCH_TOKENS = {"cpu": 4096, "cuda": 32768}  # of a batch with its padding
LOGITS = 1 << 26  # at once; their log-softmax takes 256 MiB in fp32


@dataclass(frozen=True, slots=True)
class Request:
    """Ids (n,) of which the last ``scored`` are predicted, each from all before it; n > scored."""

    ids: npt.NDArray[np.int64]
    scored: int


@dataclass(frozen=True, slots=True)
class Answer:
    """The summed log-probability of the scored tokens in nats, and whether each was the most likely one."""

    log_probability: float
    greedy: bool


def request(context: Sequence[int], continuation: Sequence[int], longest: int) -> Request:
    """Return the request for ``continuation`` after ``context``.

    As in lm-evaluation-harness the model reads at most ``longest`` ids; what is too long loses its beginning.
    """
    ids = np.array([*context, *continuation][-(longest + 1) :], np.int64)
    return Request(ids, min(len(continuation), len(ids) - 1))


def rolling_requests(ids: Sequence[int], prefix: int, longest: int) -> Iterator[Request]:
    """Yield requests that score each of ``ids`` once, in windows of ``longest``; ``prefix`` stands before the first.

    They are those of ``loglikelihood_rolling`` in lm-evaluation-harness: windows do not overlap, except that the last
    one reads as much before what it scores as the model can.
    """
    before = [prefix, *ids]
    for first in range(0, len(ids), longest):
        end = min(first + longest, len(ids))
        yield Request(np.array(before[max(0, end - longest) : end + 1], np.int64), end - first)


def score(
    model: MLATransformer, requests: Sequence[Request], between: Callable[[int, int], None] = lambda done, total: None
) -> list[Answer]:
    """Return an answer for each request. ``between`` is called after every batch, with the tokens done and in total."""
    answers: dict[int, Answer] = {}
    done, total = 0, sum(len(one.ids) for one in requests)
    for batch in batches(requests, BATCH_TOKENS[model.lm_head.weight.device.type]):
        answers |= zip(batch, score_batch(model, [requests[i] for i in batch]), strict=True)
        done += sum(len(requests[i].ids) for i in batch)
        between(done, total)
    return [answers[i] for i in range(len(requests))]


def batches(requests: Sequence[Request], tokens: int) -> Iterator[list[int]]:
    """Yield the numbers of requests, the longest first, so that the estimate of the time left is never too low."""
    batch: list[int] = []
    for i in sorted(range(len(requests)), key=lambda i: -len(requests[i].ids)):
        if batch and (len(batch) + 1) * len(requests[batch[0]].ids) > tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


@torch.inference_mode()
def score_batch(model: MLATransformer, requests: Sequence[Request]) -> list[Answer]:
    """Return an answer for each of a few requests. Padding is at the end, where no scored token attends to it."""
    width, device = max(len(one.ids) for one in requests) - 1, model.lm_head.weight.device
    tokens_BT = torch.zeros(len(requests), width, dtype=torch.long)
    for row, one in enumerate(requests):
        tokens_BT[row, : len(one.ids) - 1] = torch.from_numpy(one.ids[:-1])
    hidden_BTD = model.hidden(tokens_BT.to(device))
    ends = [len(one.ids) - 1 for one in requests]
    scored_ND = torch.cat([hidden_BTD[row, ends[row] - one.scored : ends[row]] for row, one in enumerate(requests)])
    targets_N = torch.from_numpy(np.concatenate([one.ids[-one.scored :] for one in requests])).to(device)
    likely, greedy = [], []
    rows = max(1, LOGITS // model.config.vocab_size)
    for piece_ND, target_N in zip(torch.split(scored_ND, rows), torch.split(targets_N, rows), strict=True):
        logits_NV = model.lm_head(piece_ND).float()
        likely.append(torch.log_softmax(logits_NV, -1).gather(1, target_N[:, None])[:, 0])
        greedy.append(logits_NV.argmax(-1) == target_N)
    counts = [one.scored for one in requests]
    pairs = zip(*(torch.split(torch.cat(x).cpu(), counts) for x in (likely, greedy)), strict=True)
    return [Answer(float(found.double().sum()), bool(equal.all())) for found, equal in pairs]
