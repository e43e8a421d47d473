"""Saves, loads and verifies checkpoints.

ckpt_step_N/  model.safetensors  optimizer.safetensors  trainer.json  manifest.json  [tokenizer.json ema.safetensors]
latest        the name of the newest one, replaced atomically

A checkpoint is written to a temporary directory and renamed, so it is complete or absent. When a step is saved again,
its old checkpoint is renamed to ckpt_step_N.replaced first and counts as the checkpoint of that step until the new one
is in place. Only the process that writes to the folder cleans up; there is one at a time.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from engine.checkpoints.atomic_write import FileInfo, fsync_dir, make_dirs, write_file
from engine.checkpoints.hold import held
from engine.host.files import read_json
from profiles.errors import UserError
from profiles.paths import expand
from profiles.printable import brief_key
from profiles.reader import Table, open_regular, read_text
from profiles.spec import RunSpec

NAME = re.compile(r"ckpt_step_(0|[1-9][0-9]{,14})")
REPLACED = re.compile(NAME.pattern + r"\.replaced")
FORMAT = 2  # in trainer.json and manifest.json of every checkpoint; mla-tui 0.1 wrote 1
NEEDED = ("model.safetensors", "optimizer.safetensors", "trainer.json")  # the manifest must list them
_BEST = ([float, int], [int, int])
_EARLIER = "take an earlier checkpoint"
_CHANGED = f"{{}}: is not what was saved; {_EARLIER}"


class CheckpointError(Exception):
    """A checkpoint could not be written. Earlier checkpoints are unchanged."""


class CheckpointFormatError(UserError):
    """A checkpoint is in a format that this version does not read."""


def save(
    out: Path, step: int, state: dict[str, dict[str, Any]], metadata: dict[str, Any], tokenizer: Path | None
) -> tuple[Path, int]:
    """Write the checkpoint of ``step`` to ``out`` and point ``latest`` at it; return its path and bytes.

    ``state``: tensors by file and name. ``metadata`` goes to trainer.json. Raises ``CheckpointError`` on a disk error;
    an incomplete checkpoint is never listed.
    """
    from engine.checkpoints.tensor_file import write_tensors

    final = out / f"ckpt_step_{step}"
    temporary = out / f".{final.name}.{os.getpid()}"
    metadata = {**metadata, "format": FORMAT, "step": step}
    if (other := owner(final)) not in (None, metadata.get("run")):
        whose = f"run {other}" if other else "a run in the foreground"
        raise CheckpointError(f"{final}: is there already, of {whose}; move it away, and the next save takes its place")
    there = ""
    try:
        make_dirs(out)
        clean_up(out)
        temporary.mkdir()
        files = {f"{name}.safetensors": write_tensors(temporary / f"{name}.safetensors", state[name]) for name in state}
        files["trainer.json"] = _write_json(temporary / "trainer.json", _finite(metadata))
        if tokenizer is not None and tokenizer.is_file():
            files["tokenizer.json"] = write_file(temporary / "tokenizer.json", [tokenizer.read_bytes()])
        _write_json(temporary / "manifest.json", {"format": FORMAT, "files": files})
        fsync_dir(temporary)
        if final.exists():  # an earlier attempt saved this step too
            os.rename(final, _replaced(final))
        os.rename(temporary, final)
        there = "is there and whole, but its folder cannot be written: "
        fsync_dir(out)
        _set_latest(out, final.name)
        fsync_dir(out)
    except OSError as error:
        of = f" ({tokenizer})" if error.filename == str(tokenizer) else ""
        raise CheckpointError(f"{final}: {there}{error.strerror or error}{of}") from None
    finally:
        with contextlib.suppress(OSError):  # the next save tries again
            clean_up(out)
    return final, sum(file["bytes"] for file in files.values())


def load(path: Path, parts: tuple[str, ...] | None = None) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Verify the checkpoint ``path`` and return the tensors of ``parts``, or of all, and its metadata.

    Raises ``UserError``.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        with held(path):
            content, manifest = _read(path)
            verify(path)
            parts = parts or tuple(Path(name).stem for name in manifest["files"] if name.endswith(".safetensors"))
            return {part: load_file(path / f"{part}.safetensors") for part in parts}, content
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read: {error}; {_EARLIER}") from None


def metadata(path: Path) -> dict[str, Any]:
    """Return ``trainer.json``: step, spec, cursor, val_loss, best, versions … Raises ``UserError``.

    Step, val_loss and best are checked here; ``spec_of`` and ``Cursor.from_dict`` check spec and cursor.
    """
    return _read(path)[0]


def spec_of(path: Path) -> RunSpec:
    """Return the spec of the run that wrote the checkpoint, as it was then. Raises ``UserError``.

    The file's checksum is compared: one of another digit may well be a spec.
    """
    spec, facts = metadata(path).get("spec"), path / "trainer.json"
    if any(file == facts and _sha256(file) != recorded for file, recorded in _files_of_recorded_size(path)):
        raise UserError(_CHANGED.format(facts))
    return RunSpec.from_dict(spec, f"{facts}")


def verify(path: Path) -> None:
    """Compare every file's size and checksum with the manifest. Raises ``UserError``."""
    for file, recorded in _files_of_recorded_size(path):
        if _sha256(file) != recorded:
            raise UserError(_CHANGED.format(file))


def check_sizes(path: Path) -> None:
    """Compare every file's size with the manifest, without reading tensors. Raises ``UserError``."""
    for _ in _files_of_recorded_size(path):
        pass


def _files_of_recorded_size(path: Path) -> Iterator[tuple[Path, str]]:
    """Yield each file in the manifest and its checksum. Raises ``UserError`` at the first of another size.

    A manifest that lists too little would verify nothing: it must list what every checkpoint has, and only that.
    """
    files = Table(_read(path)[1], f"{path}/manifest.json", _EARLIER).table("files")
    for name in dict.fromkeys((*NEEDED, *files.content)):
        if name != os.path.basename(name):
            raise files.fault(name, "a file of the checkpoint")
        recorded, file = files.table(name), path / name
        if not os.path.isfile(file) or file.stat().st_size != recorded.integer("bytes"):
            raise UserError(_CHANGED.format(path / brief_key(name)))
        yield file, recorded.text("sha256")


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return trainer.json and manifest.json. Raises ``UserError`` where damaged or not in ``FORMAT``.

    Both files have the format number, so that a flipped bit in one is not mistaken for another version.
    """
    if not path.is_dir():
        raise UserError(f"{path}: no such checkpoint; {instead_of(path)}")
    trainer, manifest = read_json(path / "trainer.json"), read_json(path / "manifest.json")
    if not trainer:
        raise UserError(f"{path}: is not a checkpoint of mla-tui (trainer.json is missing or damaged)")
    if not manifest:
        raise UserError(f"{path}: manifest.json is missing or damaged; {_EARLIER}")
    found = trainer.get("format")
    if found != manifest.get("format"):
        raise UserError(_CHANGED.format(path / ("manifest.json" if found == FORMAT else "trainer.json")))
    if found != FORMAT:
        raise CheckpointFormatError(f"{path}: written by {_other_version(found, trainer)}")
    facts, best = Table(trainer, f"{path}/trainer.json", _EARLIER), trainer.get("best")
    step = facts.integer("step")
    name = NAME.fullmatch(path.name) or REPLACED.fullmatch(path.name)
    if name and int(name[1]) != step:
        raise UserError(f"{path}: is of step {step}, so it was renamed; {_EARLIER}")
    for metric in ("val_loss", "eval_acc"):
        facts.optional_number(metric)
    if "run" in trainer:
        facts.text("run")
    if best is not None and not (isinstance(best, list) and list(map(type, best)) in _BEST and best[1] >= 0):
        raise facts.fault("best", "a value and its step")
    return trainer, manifest


def _other_version(format: object, trainer: dict[str, Any]) -> str:
    versions = trainer.get("versions")
    version = versions.get("mla-tui") if isinstance(versions, dict) else None
    if isinstance(format, int) and format > FORMAT:
        return f"mla-tui {version} in format {format}, this version reads format {FORMAT}; update mla-tui"
    version = version or "0.1"
    return (
        f"mla-tui {version}, whose checkpoints this version does not read;"
        f" export it with {version} (mla-tui export) and use --init-from"
    )


def steps(out: Path) -> list[int]:
    """Return the steps that have a checkpoint in ``out``, ascending."""
    try:
        found = [NAME.fullmatch(p.name) or REPLACED.fullmatch(p.name) for p in out.glob("ckpt_step_*") if p.is_dir()]
    except (OSError, ValueError):  # no name that a folder can have
        return []
    return sorted({int(m[1]) for m in found if m})


def unreadable(out: Path) -> str:
    """Return why the folder ``out`` cannot be listed; nothing where it can, or is not there."""
    try:
        os.scandir(out).close()
    except FileNotFoundError:
        return ""
    except OSError as error:
        return error.strerror or str(error)
    return ""


def path_of_step(out: Path, step: int) -> Path:
    """Return the path of the checkpoint of ``step``, one of ``steps(out)``."""
    path = out / f"ckpt_step_{step}"
    return path if path.is_dir() else _replaced(path)


def latest(out: Path) -> Path | None:
    """Return the checkpoint that ``latest`` points at, or the highest step where the pointer is damaged."""
    return newest_of(out, steps(out))


def newest_of(out: Path, among: list[int]) -> Path | None:
    """Return the checkpoint that ``latest`` points at if its step is ``among`` these, else the highest of them."""
    try:
        pointed = NAME.fullmatch(read_text(out / "latest").strip())
    except (OSError, UserError):
        pointed = None
    if pointed and int(pointed[1]) in among:
        return path_of_step(out, int(pointed[1]))
    return path_of_step(out, max(among)) if among else None


def owner(path: Path) -> str | None:
    """Return the id of the run that saved the checkpoint ``path``: "" for one in the foreground, None if unknown."""
    try:
        return metadata(path).get("run")
    except UserError:
        return None


def instead_of(path: Path) -> str:
    """Return which checkpoint to take in place of ``path``, which retention may have deleted."""
    newest = latest(path.parent)
    return f"the newest there is {newest}" if newest else "give a ckpt_step_N directory or latest"


def newest_intact(out: Path, report: Callable[[str], None], among: list[int] | None = None) -> Path | None:
    """Return the newest checkpoint in ``out``, of the steps ``among``, whose checksums match; None where there is none.

    Newer, damaged ones are reported and renamed to NAME.damaged, which is not listed and not deleted. Raises
    ``UserError`` where all are damaged, because only a user may decide to start from scratch, or where the newest is in
    another format.
    """
    known = steps(out) if among is None else among
    newest = newest_of(out, known)
    if newest is None:
        return None
    damaged: dict[Path, str] = {}
    others = (path_of_step(out, step) for step in reversed(known))
    for path in (newest, *(other for other in others if other != newest)):
        try:
            verify(path)
        except CheckpointFormatError:
            raise  # it is not damaged: an earlier one would lose its steps
        except UserError as error:
            damaged[path] = str(error).partition(";")[0]
            continue
        for bad, why in damaged.items():
            aside = bad.with_name(f"{bad.name}.damaged")
            shutil.rmtree(aside, ignore_errors=True)
            bad.rename(aside)
            report(f"{why}; renamed to {aside.name}, the run resumes from {path.name}")
        return path
    raise UserError(f"{'; '.join(damaged.values())}; no checkpoint of this run is intact, start a new run with --name")


def find(text: str) -> Path:
    """Return the checkpoint at the path ``text``, or the newest in that folder.

    Raises ``UserError`` where there is none, or it is damaged or in another format.
    """
    path = expand(text, "checkpoint")
    if not NAME.fullmatch(path.name):
        path = latest(path) or path
    metadata(path)
    return path


def _replaced(path: Path) -> Path:
    return path.with_name(f"{path.name}.replaced")


def clean_up(out: Path) -> None:
    """Finish or undo the save, and the deletion, of a process that died. Raises ``OSError``."""
    for path in list(out.iterdir()):
        if path.name.startswith((".ckpt_step_", ".latest.")):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        elif replaced := REPLACED.fullmatch(path.name):
            final = out / f"ckpt_step_{replaced[1]}"
            remove(path) if final.is_dir() else os.rename(path, final)


def remove(path: Path) -> None:
    """Delete the checkpoint ``path``. A process that dies in between leaves none that is listed. Raises ``OSError``."""
    hidden = path.with_name(f".{path.name}.gone")
    shutil.rmtree(hidden, ignore_errors=True)
    os.rename(path, hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def remove_rest(out: Path, pattern: str) -> None:
    """Delete what is left in ``out`` of deletions that were interrupted or failed, and has a name like ``pattern``.

    ``.ckpt_step_*`` is also what is left of saves: only where no process saves there. Raises ``OSError``.
    """
    for hidden in sorted(out.glob(pattern)):
        try:
            shutil.rmtree(hidden)
        except FileNotFoundError:
            pass  # another process deletes it too
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(hidden)) from None


def _set_latest(out: Path, name: str) -> None:
    temporary = out / f".latest.{os.getpid()}"
    write_file(temporary, [f"{name}\n".encode()])
    os.rename(temporary, out / "latest")


def _write_json(path: Path, content: Any) -> FileInfo:
    return write_file(path, [json.dumps(content, allow_nan=False).encode()])


def _finite(value: Any) -> Any:
    """Return ``value`` with every NaN and infinity replaced by None, because JSON has neither."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return value


def _sha256(path: Path) -> str:
    import hashlib  # OpenSSL takes 4 MB, and the supervisor, which imports this module, verifies no checkpoint

    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
