"""The order of sequences: a fixed, uniform and complete permutation."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.order import locate_sequence, permute, window_count

SEEDS = st.integers(-(2**70), 2**70)
GOLDEN_SMALL = [6, 0, 7, 5, 8, 9, 1, 3, 2, 4]
GOLDEN_NEXT_EPOCH = [3, 7, 8, 0, 4, 2, 9, 6, 5, 1]
GOLDEN_MILLION = [879932, 514504, 246454, 254772, 419726]
GOLDEN_HUGE = [752637500413, 62364086071, 175003114890]


@given(SEEDS, st.integers(0, 10**6), st.integers(1, 700))
def test_an_epoch_visits_each_window_once(seed: int, epoch: int, n: int) -> None:
    assert sorted(permute(seed, epoch, i, n) for i in range(n)) == list(range(n))


@given(SEEDS, st.integers(0, 100), st.integers(1, 10**15), st.data())
def test_positions_map_to_distinct_windows_at_any_size(seed: int, epoch: int, n: int, data: st.DataObject) -> None:
    i, j = data.draw(st.integers(0, n - 1)), data.draw(st.integers(0, n - 1))
    a, b = permute(seed, epoch, i, n), permute(seed, epoch, j, n)
    assert 0 <= a < n and 0 <= b < n
    assert (a == b) == (i == j)


def test_the_order_is_the_same_in_every_version() -> None:
    """Checkpoints hold positions in this order: if these values change, resumed runs read other data."""
    assert [permute(1, 0, i, 10) for i in range(10)] == GOLDEN_SMALL
    assert [permute(1, 1, i, 10) for i in range(10)] == GOLDEN_NEXT_EPOCH
    assert [permute(42, 3, i, 10**6) for i in range(5)] == GOLDEN_MILLION
    assert [permute(-7, 0, i, 10**12) for i in range(3)] == GOLDEN_HUGE


@pytest.mark.parametrize(("n", "i"), [(5, 5), (5, -1), (1, 1)])
def test_a_position_outside_the_epoch_is_refused(n: int, i: int) -> None:
    with pytest.raises(IndexError):
        permute(0, 0, i, n)


@pytest.mark.parametrize("n", [2, 3, 7, 17, 100])
def test_every_window_is_equally_likely_to_be_first(n: int) -> None:
    draws = 200 * n
    counts = Counter(permute(seed, 0, 0, n) for seed in range(draws))
    chi_square = sum((counts[k] - 200) ** 2 / 200 for k in range(n))
    # Mean n - 1, standard deviation sqrt(2 (n - 1)): six of them is far outside chance.
    assert chi_square < n - 1 + 6 * (2 * (n - 1)) ** 0.5


def test_neighbours_in_the_order_are_not_neighbours_in_the_file() -> None:
    n = 4096
    order = [permute(5, 0, i, n) for i in range(n)]
    # A random permutation has two such pairs on average.
    assert sum(abs(a - b) == 1 for a, b in pairwise(order)) < 20


@given(st.lists(st.integers(1, 60), min_size=1, max_size=6), st.integers(1, 9), SEEDS)
def test_sequences_cover_every_shard_without_crossing_or_overlapping(
    shards: list[int], context: int, seed: int
) -> None:
    counts = [window_count(tokens, context) for tokens in shards]
    ends = [sum(counts[: k + 1]) for k in range(len(counts))]
    seen = {locate_sequence(seed, 0, i, ends, context) for i in range(ends[-1])}
    # What one can cut by hand: slices with a target behind each token.
    cut = {
        (s, start)
        for s, tokens in enumerate(shards)
        for start in range(0, tokens, context)
        if start + context + 1 <= tokens
    }
    assert seen == cut
    assert len(seen) == ends[-1]
