"""Checkpoints: a directory a step, written beside and published by rename, whole or not there.

ckpt_step_N/  model.safetensors  optimizer.safetensors  trainer.json  manifest.json  [tokenizer.json]
latest        the name of the newest one, replaced atomically

Where a step is saved again, its old checkpoint is called ckpt_step_N.replaced until the new one has its place, and
stands for it meanwhile: no moment is without it. Only whoever writes to the folder clears up, one process at a time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from engine.checkpoints.atomic_write import Facts, make_folder, sync_folder, write_file
from engine.host.files import read_json
from profiles.errors import UserError

NAME = re.compile(r"ckpt_step_(0|[1-9][0-9]*)")
REPLACED = re.compile(NAME.pattern + r"\.replaced")
FORMAT = 1
_CHANGED = "{}: is not what was saved; take an earlier checkpoint"


class CheckpointError(Exception):
    """A checkpoint could not be written; what was there before is intact."""


def save(
    out: Path, step: int, state: dict[str, dict[str, Any]], trainer: dict[str, Any], tokenizer: Path | None
) -> tuple[Path, int]:
    """Write the checkpoint of ``step`` below ``out`` and point ``latest`` at it; returns its path and bytes.

    Raises ``CheckpointError`` where the disk refuses; nothing half-written is listed then.
    """
    from engine.checkpoints.tensor_file import write_tensors

    final = out / f"ckpt_step_{step}"
    beside = out / f".{final.name}.{os.getpid()}"
    try:
        make_folder(out)
        _clear_up(out)
        beside.mkdir()
        files = {f"{name}.safetensors": write_tensors(beside / f"{name}.safetensors", state[name]) for name in state}
        files["trainer.json"] = _write_json(beside / "trainer.json", {"format": FORMAT, "step": step, **trainer})
        if tokenizer is not None and tokenizer.is_file():
            files["tokenizer.json"] = write_file(beside / "tokenizer.json", [tokenizer.read_bytes()])
        _write_json(beside / "manifest.json", {"format": FORMAT, "files": files})
        sync_folder(beside)
        if final.exists():  # an earlier attempt came this far too
            os.rename(final, _replaced(final))
        os.rename(beside, final)
        sync_folder(out)
        _point(out, final.name)
        sync_folder(out)
    except OSError as error:
        raise CheckpointError(f"{final}: {error}") from None
    finally:
        with contextlib.suppress(OSError):  # the next save tries again
            _clear_up(out)
    return final, sum(file["bytes"] for file in files.values())


def load(
    path: Path, parts: tuple[str, ...] = ("model", "optimizer")
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """The tensors of ``parts`` and the trainer's facts. Raises ``UserError`` for a damaged or foreign directory."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    trainer = facts(path)
    verify(path)
    try:
        return {part: load_file(path / f"{part}.safetensors") for part in parts}, trainer
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read: {error}; take an earlier checkpoint") from None


def facts(path: Path) -> dict[str, Any]:
    """``trainer.json``: step, cursor, batch, spec … Raises ``UserError``."""
    if not path.is_dir():
        raise UserError(f"{path}: no such checkpoint; give a ckpt_step_N directory or latest")
    content = read_json(path / "trainer.json")
    if content.get("format") != FORMAT:
        raise UserError(
            f"{path}: is not a checkpoint of this program (trainer.json is missing, damaged or of another format)"
        )
    return content


def verify(path: Path) -> None:
    """Hold every file against the manifest's size and checksum. Raises ``UserError``."""
    for file, told in _of_right_size(path):
        if _sha256(file) != told.get("sha256"):
            raise UserError(_CHANGED.format(file))


def check_sizes(path: Path) -> None:
    """Hold every file against the manifest's size alone: reads no tensors. Raises ``UserError``."""
    for _ in _of_right_size(path):
        pass


def _of_right_size(path: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Each file of the manifest and what that says of it. Raises ``UserError`` at the first of another size."""
    files = read_json(path / "manifest.json").get("files")
    if not isinstance(files, dict):
        raise UserError(f"{path}: manifest.json is missing or damaged; take an earlier checkpoint")
    for name, told in files.items():
        file = path / name
        told = told if isinstance(told, dict) else {}
        if not file.is_file() or file.stat().st_size != told.get("bytes"):
            raise UserError(_CHANGED.format(file))
        yield file, told


def steps(out: Path) -> list[int]:
    """The steps that have a checkpoint below ``out``, ascending."""
    found = (NAME.fullmatch(p.name) or REPLACED.fullmatch(p.name) for p in out.glob("ckpt_step_*") if p.is_dir())
    return sorted({int(m[1]) for m in found if m})


def of_step(out: Path, step: int) -> Path:
    """Where the checkpoint of ``step`` is: one of ``steps``."""
    path = out / f"ckpt_step_{step}"
    return path if path.is_dir() else _replaced(path)


def latest(out: Path) -> Path | None:
    """The checkpoint ``latest`` points at; where the pointer is damaged, the one with the highest step."""
    known = steps(out)
    try:
        pointed = NAME.fullmatch((out / "latest").read_text().strip())
    except (OSError, UnicodeDecodeError):
        pointed = None
    if pointed and int(pointed[1]) in known:
        return of_step(out, int(pointed[1]))
    return of_step(out, known[-1]) if known else None


def intact(out: Path, tell: Callable[[str], None]) -> Path | None:
    """The newest checkpoint below ``out`` that is what was saved; None where none was ever saved.

    Damaged ones before it are said through ``tell`` and put aside, under a name that neither a run nor retention takes
    for a checkpoint. Raises ``UserError`` where all are damaged: to begin at nothing is a person's decision.
    """
    newest = latest(out)
    if newest is None:
        return None
    damaged: dict[Path, str] = {}
    others = (of_step(out, step) for step in reversed(steps(out)))
    for path in (newest, *(other for other in others if other != newest)):
        try:
            facts(path)
            verify(path)
        except UserError as error:
            damaged[path] = str(error).partition(";")[0]
            continue
        for bad, why in damaged.items():
            aside = bad.with_name(f"{bad.name}.damaged")
            shutil.rmtree(aside, ignore_errors=True)
            bad.rename(aside)
            tell(f"{why}; put aside as {aside.name}, the run goes on from {path.name}")
        return path
    raise UserError(f"{'; '.join(damaged.values())}; no checkpoint of this run is intact, start anew with --name")


def find(text: str, out: Path) -> Path:
    """What ``text`` means: a checkpoint, a folder of them, or ``latest`` below ``out``. Raises ``UserError``."""
    if text != "latest":
        path = Path(text).expanduser().absolute()
        if not NAME.fullmatch(path.name) and (inner := latest(path)) is not None:
            return inner
        facts(path)
        return path
    newest = [found for folder in (out, *out.glob("*/")) if (found := latest(folder)) is not None]
    if not newest:
        raise UserError(f"latest: there is no checkpoint below {out}")
    return max(newest, key=lambda p: p.stat().st_mtime).absolute()


def retain(out: Path, keep: int, best: int | None) -> None:
    """Delete all but the newest ``keep``, the best one and the one that ``latest`` points at.

    What cannot be deleted stays until the next time.
    """
    newest = latest(out)
    for step in steps(out)[:-keep]:
        path = of_step(out, step)
        if step != best and path != newest:
            with contextlib.suppress(OSError):
                _delete(path)


def check_delete(out: Path, step: int) -> None:
    """Whether a person can do without this checkpoint. Raises ``UserError`` for those that ``retain`` always keeps: the
    best one and the one that ``latest`` points at."""
    path = of_step(out, step)
    if path == latest(out):
        raise UserError(f"{path}: is the newest, from which the run goes on; it stays")
    if step == best_step(out):
        raise UserError(f"{path}: has the lowest validation loss; it stays")


def delete(out: Path, step: int) -> None:
    """Delete the checkpoint of ``step``. Raises ``UserError`` where that is refused or the disk refuses it."""
    check_delete(out, step)
    path = of_step(out, step)
    try:
        _delete(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be deleted: {error.strerror or error}") from None


def best_step(out: Path) -> int | None:
    """The step with the lowest validation loss, as the newest checkpoint below ``out`` knows it."""
    newest = latest(out)
    best = read_json(newest / "trainer.json").get("best") if newest else None
    return int(best[1]) if isinstance(best, list) and len(best) == 2 else None


def _replaced(path: Path) -> Path:
    return path.with_name(f"{path.name}.replaced")


def _clear_up(out: Path) -> None:
    """Finish or undo what a writer that died here had begun. Raises ``OSError``."""
    for path in list(out.iterdir()):
        if path.name.startswith((".ckpt_step_", ".latest.")):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        elif replaced := REPLACED.fullmatch(path.name):
            final = out / f"ckpt_step_{replaced[1]}"
            _delete(path) if final.is_dir() else os.rename(path, final)


def _delete(path: Path) -> None:
    """Delete a checkpoint: what dies on the way leaves nothing that looks like one. Raises ``OSError``."""
    hidden = path.with_name(f".{path.name}.gone")
    shutil.rmtree(hidden, ignore_errors=True)
    os.rename(path, hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def _point(out: Path, name: str) -> None:
    beside = out / f".latest.{os.getpid()}"
    write_file(beside, [f"{name}\n".encode()])
    os.rename(beside, out / "latest")


def _write_json(path: Path, content: Any) -> Facts:
    return write_file(path, [json.dumps(content).encode()])


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
