"""Every rank reads for itself what a run goes on from: it must be there on every host, and the same."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.checkpoints import checkpoint
from engine.train.backends.ranks import RankZeroError, SingleRank
from engine.train.checkpoint_check import check_source_on_all_ranks
from profiles.errors import NeedsAttentionError, UserError


class OneOfTwo(SingleRank):
    """A rank whose other rank, on another host, has ``there`` in the place of what this one has ``here``."""

    size = 2

    def __init__(self, rank: int, here: Path, there: Path) -> None:
        self.rank, self._here, self._there = rank, here, there

    def run_on_rank_zero(self, body: Callable[[], Any]) -> Any:
        if self.rank == 0:
            return body()
        aside = self._here.rename(self._here.with_name("aside"))
        shutil.copytree(self._there, self._here)
        try:
            return body()
        finally:
            shutil.rmtree(self._here)
            aside.rename(self._here)

    def gather(self, values: list[float]) -> list[list[float]]:
        differs = [float(not self._same)]
        return [values, differs] if self.rank == 0 else [[0.0], values]

    @property
    def _same(self) -> bool:
        manifests = [path / "manifest.json" for path in (self._here, self._there)]
        return manifests[1].exists() and manifests[0].read_bytes() == manifests[1].read_bytes()


def put(folder: Path, value: float) -> Path:
    tensors = {"w": torch.full((2,), value)}
    return checkpoint.save(folder, 40, {"model": tensors, "optimizer": tensors}, {}, None)[0]


def test_the_same_on_both_hosts_is_taken(tmp_path: Path) -> None:
    here, there = put(tmp_path / "here", 1.0), put(tmp_path / "there", 1.0)
    for rank in (0, 1):
        check_source_on_all_ranks(here, OneOfTwo(rank, here, there))
    check_source_on_all_ranks(None, OneOfTwo(0, here, there))
    check_source_on_all_ranks(tmp_path / "none", SingleRank())


def test_a_host_that_has_another_checkpoint_of_that_name_or_none_is_named(tmp_path: Path) -> None:
    here, there = put(tmp_path / "here", 1.0), put(tmp_path / "there", 2.0)
    text = (
        f"not every rank has what the run goes on from: {here}: on the host of rank 1 it is missing, or another of that"
        " name; mount or copy it there"
    )
    with pytest.raises(NeedsAttentionError) as said:
        check_source_on_all_ranks(here, OneOfTwo(0, here, there))
    assert str(said.value) == text
    with pytest.raises(UserError, match="ckpt_step_40: is another one than that of rank 0"):
        check_source_on_all_ranks(here, OneOfTwo(1, here, there))


def test_a_rank_that_has_it_leaves_the_word_to_rank_zero(tmp_path: Path) -> None:
    class SecondOfThree(SingleRank):
        rank, size = 1, 3

        def gather(self, values: list[float]) -> list[list[float]]:
            return [[0.0], values, [1.0]]

    with pytest.raises(RankZeroError):
        check_source_on_all_ranks(put(tmp_path, 1.0), SecondOfThree())
