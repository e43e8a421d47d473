"""Checkpoints: a directory a step, written beside and published by rename, whole or not there.

ckpt_step_N/  model.safetensors  optimizer.safetensors  trainer.json  manifest.json  [tokenizer.json]
latest        the name of the newest one, replaced atomically
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.jobs.files import read_json
from profiles.errors import UserError

NAME = re.compile(r"ckpt_step_(\d+)")
FORMAT = 1


class CheckpointError(Exception):
    """A checkpoint could not be written; what was there before is intact."""


def save(
    out: Path, step: int, state: dict[str, dict[str, Any]], trainer: dict[str, Any], tokenizer: Path | None
) -> tuple[Path, int]:
    """Write the checkpoint of ``step`` below ``out`` and point ``latest`` at it; returns its path and bytes.

    Raises ``CheckpointError`` where the disk refuses; nothing half-written stays.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    final = out / f"ckpt_step_{step}"
    beside = out / f".{final.name}.{os.getpid()}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        for stale in out.glob(".ckpt_step_*"):
            shutil.rmtree(stale, ignore_errors=True)
        beside.mkdir()
        for name, tensors in state.items():
            save_file({k: v.contiguous() for k, v in tensors.items()}, beside / f"{name}.safetensors")
        (beside / "trainer.json").write_text(json.dumps({"format": FORMAT, "step": step, **trainer}))
        if tokenizer is not None and tokenizer.is_file():
            shutil.copyfile(tokenizer, beside / "tokenizer.json")
        written = sorted(beside.iterdir())
        files = {p.name: {"bytes": p.stat().st_size, "sha256": _sha256(p)} for p in written}
        (beside / "manifest.json").write_text(json.dumps({"format": FORMAT, "files": files}))
        for path in (*beside.iterdir(), beside):
            _fsync(path)
        if final.exists():  # an earlier attempt came this far too
            os.rename(final, beside.with_name(beside.name + ".old"))
        os.rename(beside, final)
        shutil.rmtree(beside.with_name(beside.name + ".old"), ignore_errors=True)
        _point(out, final.name)
        _fsync(out)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise CheckpointError(f"{final}: {error}") from None
    return final, sum((final / p.name).stat().st_size for p in written)


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
    files = read_json(path / "manifest.json").get("files")
    if not isinstance(files, dict):
        raise UserError(f"{path}: manifest.json is missing or damaged; take an earlier checkpoint")
    for name, told in files.items():
        file = path / name
        told = told if isinstance(told, dict) else {}
        if not file.is_file() or file.stat().st_size != told.get("bytes") or _sha256(file) != told.get("sha256"):
            raise UserError(f"{file}: is not what was saved; take an earlier checkpoint")


def steps(out: Path) -> list[int]:
    """The steps that have a checkpoint below ``out``, ascending."""
    found = (NAME.fullmatch(p.name) for p in out.glob("ckpt_step_*") if p.is_dir())
    return sorted(int(m[1]) for m in found if m)


def latest(out: Path) -> Path | None:
    """The checkpoint ``latest`` points at; where the pointer is damaged, the one with the highest step."""
    try:
        pointed = out / (out / "latest").read_text().strip()
        if NAME.fullmatch(pointed.name) and pointed.is_dir():
            return pointed
    except (OSError, UnicodeDecodeError):
        pass
    return out / f"ckpt_step_{known[-1]}" if (known := steps(out)) else None


def intact(out: Path, tell: Callable[[str], None]) -> Path | None:
    """The newest checkpoint below ``out`` that is what was saved; None where none was ever saved.

    Damaged ones before it are said through ``tell`` and put aside, under a name that neither a run nor retention takes
    for a checkpoint. Raises ``UserError`` where all are damaged: to begin at nothing is a person's decision.
    """
    newest = latest(out)
    if newest is None:
        return None
    damaged: dict[Path, str] = {}
    others = (out / f"ckpt_step_{step}" for step in reversed(steps(out)))
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
    """Delete all but the newest ``keep`` and the best one."""
    for step in steps(out)[:-keep]:
        if step != best:
            shutil.rmtree(out / f"ckpt_step_{step}", ignore_errors=True)


def _point(out: Path, name: str) -> None:
    beside = out / f".latest.{os.getpid()}"
    beside.write_text(name + "\n")
    _fsync(beside)
    os.rename(beside, out / "latest")


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
