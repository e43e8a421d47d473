"""Initial weights are those that one thread would draw, whatever the number of threads."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.initial_weights import LOG2_CHUNK, draw_normal
from model.mersenne_jump import jump

torch.set_num_threads(1)

rows = st.integers(1, 40)
whole_blocks = st.lists(st.tuples(rows, st.sampled_from([16, 48, 160])), min_size=1, max_size=6)
any_shapes = st.lists(st.tuples(rows, st.integers(1, 40)), min_size=1, max_size=6)


def drawn_by_one_thread(sizes: list[tuple[int, int]], seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.empty(size).normal_(0.0, 0.02 * (n + 1), generator=generator) for n, size in enumerate(sizes)]


@settings(deadline=None)
@given(whole_blocks | any_shapes, st.integers(0, 2**63 - 1), st.integers(1, 4), st.integers(4, 14))
def test_threads_draw_the_values_of_one(sizes: list[tuple[int, int]], seed: int, threads: int, log2_chunk: int) -> None:
    tensors = [torch.empty(size) for size in sizes]
    draw_normal([(tensor, 0.02 * (n + 1)) for n, tensor in enumerate(tensors)], seed, threads, log2_chunk)
    for tensor, expected in zip(tensors, drawn_by_one_thread(sizes, seed), strict=True):
        assert torch.equal(tensor, expected)


def test_bf16_weights_are_the_rounded_ones() -> None:
    narrow = torch.empty(40, 160, dtype=torch.bfloat16)
    draw_normal([(narrow, 0.02)], 5, 2, 10)
    assert torch.equal(narrow, drawn_by_one_thread([(40, 160)], 5)[0].bfloat16())


@pytest.mark.parametrize("log2_steps", [0, 14, 17, LOG2_CHUNK])
def test_a_jump_is_so_many_numbers(log2_steps: int) -> None:
    generator = torch.Generator().manual_seed(11)
    ahead = torch.Generator()
    ahead.set_state(jump(jump(generator.get_state(), log2_steps), log2_steps))
    torch.empty(2 << log2_steps).uniform_(generator=generator)
    assert torch.equal(torch.empty(999).uniform_(generator=ahead), torch.empty(999).uniform_(generator=generator))
