"""Tells which data runs have read, so that a comparison says where losses are not of the same text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from profiles.errors import UserError

if TYPE_CHECKING:
    from data.fingerprint import Fingerprint
    from engine.events.run_dir import RunDir

_TOKENIZER = "tokenizer"
_NOTES = {  # for the first that differs
    _TOKENIZER: "different tokenizers: compare bits per byte, not losses",
    "val data": "validated on different data",
    "train data": "trained on different data",
}


def data_read(run: RunDir) -> dict[str, str]:
    """Return ``{"train data": "532,302 tokens, dd9edf23", …}``, with a hash of the content.

    Empty where the run has not begun to train, or the record of its data is lost or damaged.
    """
    from engine.train.data_check import recorded_data

    try:
        recorded = recorded_data(run, run.current_state().data or "")
    except UserError:
        return {}
    if recorded is None:
        return {}
    splits = {f"{split} data": _describe(recorded, split) for split in recorded.splits}
    return splits | ({_TOKENIZER: recorded.tokenizer[:8]} if recorded.tokenizer else {})


def _describe(recorded: Fingerprint, split: str) -> str:
    """Equal for shards of equal content in the same order, whatever they are called."""
    shards = recorded.splits[split]
    weights = recorded.weights if split == "train" else {}
    content = json.dumps([[shard.sampled for shard in shards], *weights.values()])
    tokens = sum(shard.tokens for shard in shards)
    return f"{tokens:,} tokens, {hashlib.blake2b(content.encode(), digest_size=4).hexdigest()}"


def data_note(runs: Sequence[dict[str, str]]) -> str:
    """Return in a few words why the losses of ``runs``, each as ``data_read`` returns it, do not compare; or ""."""
    for key, note in _NOTES.items():
        if len({run[key] for run in runs if key in run}) > 1:
            return note
    return ""
