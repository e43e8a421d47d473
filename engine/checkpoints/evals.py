"""Keeps the results of evaluations in ``evals.json``, in the folder of the checkpoint that they judge.

They are deleted and exported with it: a result is worth nothing without the weights. The manifest does not list them,
because they may be added at any time.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from engine.events.numbers import Count, Number
from engine.host.struct_json import DAMAGED_JSON, write_struct
from profiles.errors import UserError
from profiles.reader import read_bytes

EVALS_JSON = "evals.json"


class EvalResult(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one evaluation measured on one file or split."""

    name: str  # of the file or split
    format: str  # text, shard, split, hellaswag, arc, piqa or lambada
    metrics: dict[str, Number]
    examples: Count  # questions, documents or sequences
    digest: str = ""  # sha256 of what was scored; results of other content are not comparable
    context: Count = 0  # tokens that the model saw at most
    device: str = ""
    version: str = ""  # of mla-tui
    ema: bool = False  # of the average of the weights
    seconds: Number = 0.0
    t: Number = 0.0  # unix seconds

    @property
    def label(self) -> str:
        """What was scored, and whether by the average of the weights."""
        return f"{self.name} (ema)" if self.ema else self.name


class Evals(Struct, frozen=True):
    """The content of ``evals.json``: one result for each name, format and ema, the newest."""

    results: list[EvalResult]


def read_results(folder: Path) -> list[EvalResult]:
    """Return the results beside the weights in ``folder``. Raises ``UserError`` where the file is damaged."""
    path = folder / EVALS_JSON
    try:
        return msgspec.json.decode(read_bytes(path), type=Evals).results
    except FileNotFoundError:
        return []
    except DAMAGED_JSON as error:
        raise UserError(f"{path}: is damaged: {error}; remove it and evaluate again") from None


def modified(folder: Path) -> float:
    """Return when the results in ``folder`` were written, in Unix time; 0 where there are none."""
    try:
        return (folder / EVALS_JSON).stat().st_mtime
    except OSError:
        return 0.0


def add_results(folder: Path, results: list[EvalResult]) -> None:
    """Add ``results`` to those in ``folder``, in place of earlier ones of the same name, format and weights.

    The file is replaced as a whole. Raises ``UserError`` and ``OSError``.
    """
    new = {(result.label, result.format): result for result in results}
    kept = [old for old in read_results(folder) if (old.label, old.format) not in new]
    write_struct(folder / EVALS_JSON, Evals([*kept, *new.values()]))
