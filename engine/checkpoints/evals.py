"""Keeps the results of evaluations in ``evals.json``, in the folder of the checkpoint that they judge.

They are deleted and exported with it: a result is worth nothing without the weights. The manifest does not list them,
because they may be added at any time. Each names the weights that it judges, so in another folder it counts for
nothing.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from engine.events.numbers import Count, Number
from engine.host.files import read_json
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
    weights: str = ""  # which ones, as weights_id names them
    seconds: Number = 0.0
    t: Number = 0.0  # unix seconds

    @property
    def label(self) -> str:
        """What was scored, and whether by the average of the weights."""
        return f"{self.name} (ema)" if self.ema else self.name


class Evals(Struct, frozen=True, omit_defaults=True):
    """The content of ``evals.json``: one result for each name, format, content, ema and weights, the newest.

    ``checksum``: of the results, because one of another digit may well be a result. Older versions wrote none.
    """

    results: list[EvalResult]
    checksum: str = ""


def weights_id(folder: Path, ema: bool = False) -> str:
    """Return what identifies the weights in ``folder``: their checksum in its manifest, "" where it has none.

    ``ema``: those of their average. A Hugging Face directory has no manifest and one kind of weights: a hash of their
    files. Raises ``UserError`` where one cannot be read.
    """
    if os.path.isfile(folder / "config.json") and not os.path.exists(folder / "manifest.json"):
        return _hash_of_files(folder)
    found: Any = read_json(folder / "manifest.json")
    for key in ("files", f"{'ema' if ema else 'model'}.safetensors", "sha256"):
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, str) else ""


def _hash_of_files(folder: Path) -> str:
    """Return a hash of the names and contents of the weights in ``folder``; "" where there are none."""
    from hashlib import sha256  # here, because ls hashes nothing

    parts = []
    for path in sorted(folder.glob("*.safetensors")):
        try:
            found = path.stat()
            parts.append(f"{path.name} {_hash_of_file(path, found.st_ino, found.st_size, found.st_mtime_ns)}")
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror or error}; take another copy") from None
    return sha256("\n".join(parts).encode()).hexdigest() if parts else ""


@lru_cache
def _hash_of_file(path: Path, *version: int) -> str:
    """``version``: what changes with the content, which is gigabytes and asked for after each file that is measured."""
    from hashlib import file_digest

    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def read_results(folder: Path) -> list[EvalResult]:
    """Return the results of the weights in ``folder``. Raises ``UserError`` where the file is damaged."""
    ids = {ema: weights_id(folder, ema) for ema in (False, True)}
    return [result for result in _read(folder) if result.weights == ids[result.ema]]


def foreign_results(folder: Path) -> int:
    """Return how many results in ``folder`` are of other weights, such as those of a file that was copied there."""
    return len(_read(folder)) - len(read_results(folder))


def _read(folder: Path) -> list[EvalResult]:
    path = folder / EVALS_JSON
    try:
        found = msgspec.json.decode(read_bytes(path), type=Evals)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except DAMAGED_JSON as error:
        raise UserError(f"{path}: is damaged: {error}; remove it and evaluate again") from None
    if found.checksum not in ("", _checksum(found.results)):
        raise UserError(f"{path}: is not what was saved; remove it and evaluate again")
    return found.results


def _checksum(results: list[EvalResult]) -> str:
    from hashlib import sha256

    return sha256(msgspec.json.encode(results)).hexdigest()


def modified(folder: Path) -> float:
    """Return when the results in ``folder`` were written, in Unix time; 0 where there are none."""
    try:
        return (folder / EVALS_JSON).stat().st_mtime
    except OSError:
        return 0.0


def add_results(folder: Path, results: list[EvalResult]) -> None:
    """Add ``results`` of the weights in ``folder``, in place of earlier ones of the same name, format and content.

    Two files of one name have two contents, and each keeps its result. The file is replaced as a whole. Raises
    ``UserError`` and ``OSError``.
    """
    new = [replace(result, weights=weights_id(folder, result.ema)) for result in results]
    given = {(result.label, result.format, result.digest, result.weights) for result in new}
    kept = [old for old in _read(folder) if (old.label, old.format, old.digest, old.weights) not in given]
    results = [*kept, *new]
    write_struct(folder / EVALS_JSON, Evals(results, _checksum(results)))
