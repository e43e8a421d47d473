"""Checks that every rank has the checkpoint or the weights that the run starts from: each reads them for itself."""

from __future__ import annotations

import hashlib
from pathlib import Path

from engine.checkpoints.evals import weights_id
from engine.events.phases import NOT_ON_ALL_RANKS
from engine.train.backends.ranks import Ranks, RankZeroError
from profiles.errors import NeedsAttentionError, UserError
from profiles.reader import read_bytes


def check_source_on_all_ranks(source: Path | None, ranks: Ranks) -> None:
    """Raise ``NeedsAttentionError`` where a rank, as on a host without that disk, has not the ``source`` of rank 0.

    It would end alone, again and again, or go on from other weights that have the same name there.
    """
    if source is None or ranks.size == 1:
        return
    first = ranks.run_on_rank_zero(lambda: _identity(source))
    try:
        own, why = _identity(source), ""
    except UserError as error:
        own, why = "", str(error)
    lacking = [rank for rank, (differs,) in enumerate(ranks.gather([float(own != first)])) if differs]
    if not lacking:
        return
    if ranks.rank in lacking:
        raise UserError(why or f"{source}: is another one than that of rank 0")
    text = (
        f"{NOT_ON_ALL_RANKS}: {source}: on the host of rank {', '.join(map(str, lacking))} it is missing, or another of"
        " that name; mount or copy it there"
    )
    raise RankZeroError(text) if ranks.rank else NeedsAttentionError(text)


def _identity(source: Path) -> str:
    """Return what changes with each byte of a checkpoint or a Hugging Face directory. Raise ``UserError``."""
    try:
        return hashlib.sha256(read_bytes(source / "manifest.json")).hexdigest()
    except OSError as error:
        if found := weights_id(source) if source.is_dir() else "":
            return found
        raise UserError(f"{source}: cannot be read here: {error.strerror or error}") from None
