"""Draws the initial weights of a model, on several threads, with the values that one thread would draw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from model.mersenne_jump import can_jump, jump

LOG2_CHUNK = 25  # numbers that a thread draws at a time: 128 MiB, 0.15 s
BLOCK = 16  # torch draws normal numbers in blocks of so many, each from as many of the generator's
MAX_THREADS = 8  # on a card each holds a chunk in host memory


@dataclass(frozen=True, slots=True)
class Part:
    """The values ``first`` to ``last - 1`` of the flattened ``tensor``, to be normal(0, ``std``)."""

    tensor: Tensor
    std: float
    first: int
    last: int


def draw_normal(tensors: Sequence[tuple[Tensor, float]], seed: int, threads: int, log2_chunk: int = LOG2_CHUNK) -> None:
    """Fill each tensor with normal(0, std), for ``(tensor, std)``.

    The values are those of ``normal_`` on one tensor after another, in fp32 on the CPU with one generator: they depend
    on ``seed``, shapes and order alone. The stream of the generator is cut into chunks of 2 ** ``log2_chunk`` numbers.
    """
    state = torch.Generator("cpu").manual_seed(seed).get_state()
    parts = [Part(tensor, std, 0, tensor.numel()) for tensor, std in tensors]
    whole_blocks = not any(part.last % BLOCK for part in parts)  # the rest of a tensor takes other numbers
    chunks = list(_chunks(parts, 1 << log2_chunk)) if whole_blocks and can_jump(state) else []
    if len(chunks) < 2:
        _draw(state, parts)
        return
    pool = ThreadPoolExecutor(min(threads, MAX_THREADS))
    try:
        drawn = [pool.submit(_draw, state, chunks[0])]
        for chunk in chunks[1:]:
            state = jump(state, log2_chunk)
            drawn.append(pool.submit(_draw, state, chunk))
        for each in drawn:
            each.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _chunks(parts: Sequence[Part], size: int) -> Iterator[list[Part]]:
    """Cut ``parts`` into lists of ``size`` values, and a last one of the rest."""
    chunk, room = list[Part](), size
    for part in parts:
        first = part.first
        while first < part.last:
            if not room:
                yield chunk
                chunk, room = [], size
            last = min(part.last, first + room)
            chunk.append(Part(part.tensor, part.std, first, last))
            room -= last - first
            first = last
    if chunk:
        yield chunk


def _draw(state: Tensor, parts: Sequence[Part]) -> None:
    generator = torch.Generator("cpu")
    generator.set_state(state)
    for part in parts:
        target = part.tensor.view(-1)[part.first : part.last]
        if target.device.type == "cpu" and target.dtype == torch.float32:
            target.normal_(0.0, part.std, generator=generator)
        else:
            drawn = torch.empty(len(target), dtype=torch.float32, device="cpu")
            target.copy_(drawn.normal_(0.0, part.std, generator=generator))
