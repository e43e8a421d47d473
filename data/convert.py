"""Converts files of token ids to shards whose header names the type of the ids.

It takes NumPy arrays (``.npy``, also without its header, as OLMo writes them), and bare ``.bin`` files if their first
ids, or the index that Megatron-LM writes beside them, show how wide the ids are.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data.dtypes import UINT16, UINT32
from data.foreign import NUMPY_MAGIC, check_kind, dtype_of
from data.shard_file import MAGICS, write_shard
from data.split_files import bin_files, folders_below
from profiles.errors import UserError
from profiles.printable import brief
from profiles.reader import open_regular

_BLOCK_TOKENS = 1 << 20
_HEAD_BYTES = 1 << 16
ORIGINAL = ".original"  # is appended to the name of a converted .bin, so that it is no shard any more


def convert_path(path: Path) -> tuple[list[str], list[str]]:
    """Convert ``path``, or all files in and below a folder; return a line for each that was converted, and problems.

    ``x.bin`` is replaced and kept as ``x.bin.original``; ``x.npy`` stays beside its ``x.bin``. Shards with a header are
    left alone. Raise ``UserError`` if there is nothing to convert.
    """
    if os.path.isdir(path):
        files = [file for folder in folders_below(path) for file in (*bin_files(folder), *_arrays(folder))]
    elif os.path.exists(path):
        files = [path]
    else:
        raise UserError(f"{path}: does not exist: name a .bin or .npy file, or a folder of them")
    done, problems = [], []
    for file in files:
        try:
            if (ids := _ids(file)) is not None:
                done.append(_convert(file, ids))
        except UserError as error:
            problems.append(str(error))
    if not done and not problems:
        raise UserError(f"{path}: holds no .bin without a header and no .npy: there is nothing to convert")
    return done, problems


def _arrays(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.npy") if path.name[0] != ".")


def _ids(path: Path) -> npt.NDArray[Any] | None:
    """Return the ids in a file, (tokens,), as a memory map; None for a shard with a header. Raise ``UserError``."""
    try:
        with open_regular(path) as file:
            head = file.read(_HEAD_BYTES)
            size = os.fstat(file.fileno()).st_size
        if int.from_bytes(head[:4], "little") in MAGICS:
            return None
        if not head.startswith(NUMPY_MAGIC):
            return np.memmap(path, _bare_dtype(path, head, size), mode="r")
        ids: npt.NDArray[Any] = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        reason = brief(getattr(error, "strerror", None) or str(error))
        raise UserError(f"{path}: cannot be read ({reason}): copy or pack it again") from error
    if ids.dtype.kind not in "iu" or not ids.size or not ids.flags.c_contiguous:
        raise UserError(f"{path}: holds a {ids.dtype} array of shape {ids.shape}, not token ids: pack it again")
    return ids.reshape(-1)


def _bare_dtype(path: Path, head: bytes, size: int) -> np.dtype[Any]:
    if not head:
        raise UserError(f"{path}: empty (0 bytes): pack it again or remove it")
    check_kind(path, head, size)
    dtype = dtype_of(path, head)
    if dtype is None:
        raise UserError(f"{path}: its ids do not show their type: name it in dataset.json, as in {_EXAMPLE}")
    if size % dtype.itemsize:
        raise UserError(
            f"{path}: {size} bytes are not a whole number of {dtype.itemsize}-byte ids: the file is truncated"
        )
    return dtype


_EXAMPLE = '{"dtype": "uint32"}'


def _convert(path: Path, ids: npt.NDArray[Any]) -> str:
    """Write the shard, keep the original, and return a line that says so. Raise ``UserError``."""
    dtype = UINT16 if _check_range(path, ids) < 1 << 16 else UINT32
    target = path.with_suffix(".bin")
    original = path if target != path else path.with_name(path.name + ORIGINAL)
    for blocker in {target, original} - {path}:
        if os.path.exists(blocker):
            raise UserError(f"{blocker}: exists; move it away, then convert {path.name} again")
    temporary = path.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        write_shard(temporary, ids, dtype)
        if original != path:
            path.rename(original)
        temporary.rename(target)
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror}): free some space, or copy the data") from error
    finally:
        temporary.unlink(missing_ok=True)
    return f"{target}: {len(ids)} {ids.dtype.name} ids, now {dtype.name} with a header; the original is {original.name}"


def _check_range(path: Path, ids: npt.NDArray[Any]) -> int:
    """Return the highest id. Raise ``UserError`` for one below 0 or above 32 bits."""
    highest = 0
    for start in range(0, len(ids), _BLOCK_TOKENS):
        block = ids[start : start + _BLOCK_TOKENS]
        for extreme in (int(block.min()), int(block.max())):
            if not 0 <= extreme < 1 << 32:
                token = start + int(np.argmax(block == extreme))
                raise UserError(f"{path}: token {token} is {extreme}, which is no token id: pack it again without that")
        highest = max(highest, int(block.max()))
    return highest
