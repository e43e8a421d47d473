"""Copies standard input to a file, because a pack that goes on reads it again.

Input without an end does not fill the disk: it is refused where 64 MiB hold no separator of documents, as those of
``/dev/zero``, and where packing it would leave too little of the disk.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

from data.pack.documents import LIMIT, TOO_LARGE
from data.pack.report import Report
from data.pack.request import STDIN
from profiles.errors import UserError

_BLOCK = 1 << 20
_BETWEEN_LOOKS = 16 << 20  # bytes from one look at the disk to the next
_SHARE_OF_IDS = 0.5  # of the text: about four bytes a token, two bytes an id
_RESERVE, _RESERVED_SHARE = 1 << 30, 0.05  # of the disk, whichever is less


def spool(path: Path, separator: bytes | None, packed: int, report: Report) -> str:
    """Copy standard input to ``path`` and return its hash. Raise ``UserError`` and ``OSError``, and leave no copy then.

    ``separator`` ends a document; without one all of the input is one document. ``packed`` bytes of it have their ids
    on the disk already.
    """
    if sys.stdin is None:
        raise UserError(f"{STDIN}: standard input is closed: pipe text into it, or name a file")
    try:
        return _copy(path, separator, packed, report)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _copy(path: Path, separator: bytes | None, packed: int, report: Report) -> str:
    digest = hashlib.blake2b(digest_size=16)
    size, separated, end = 0, False, b""
    with path.open("wb") as file:
        while block := sys.stdin.buffer.read(_BLOCK):
            digest.update(block)
            file.write(block)
            size += len(block)
            if separator and not separated:
                separated = separator in end + block
                end = block[-len(separator) :]
            if size > LIMIT and not separated:
                raise UserError(_one_document(separator))
            if size % _BETWEEN_LOOKS < len(block):
                report.stage(f"reading standard input: {_mb(size)}")
                file.flush()
                _check_room(path, size, packed)
    return digest.hexdigest()


def _one_document(separator: bytes | None) -> str:
    what = f"is one document, {TOO_LARGE}"
    if separator:
        what = f"has no {separator.decode(errors='replace')!r} in its first {LIMIT >> 20} MiB"
    return (
        f"{STDIN}: standard input {what}: nothing of it was kept; cut it into documents with --separator, or name its"
        " kind with --stdin"
    )


def _check_room(path: Path, size: int, packed: int) -> None:
    """Raise ``UserError`` where the disk has too little room for the ids of the text, and for other programs."""
    disk = shutil.disk_usage(path.parent)
    needed = int(max(0, size - packed) * _SHARE_OF_IDS + min(_RESERVE, disk.total * _RESERVED_SHARE))
    if disk.free < needed:
        raise UserError(
            f"{STDIN}: {_mb(size)} of standard input were read, and of the {_mb(disk.free)} free on the disk of"
            f" {path.parent.parent} packing them and other programs need {_mb(needed)}: nothing was kept; name files"
            " instead of -, which are not copied, or choose an --out with more room"
        )


def _mb(size: float) -> str:
    return f"{size / 1e6:,.0f} MB"
