"""Reads a source file block by block, plain or compressed, and hashes it on the way."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from data.pack.sources import Source
from profiles.reader import open_regular_status

BLOCK = 1 << 20
# Zstandard may turn 4 bytes into 128 KiB, so a piece of this size is at most 16 MiB.
_ZSTD_PIECE = 512
COMPRESSED = (".gz", ".zst")


def suffix_of(path: str) -> str:
    """Return the suffix of a file's name in lower case, as pathlib does, but in a tenth of the time."""
    name = path[path.rfind("/") + 1 :]
    dot = name.rfind(".")
    return name[dot:].lower() if 0 < dot < len(name) - 1 else ""


class FileFault(Exception):
    """Why the rest of a source file cannot be read."""


class RawFile(io.RawIOBase):
    """The bytes of a source file as they are on disk. ``position`` and ``digest`` are of what was read so far."""

    def __init__(self, source: Source) -> None:
        """Open the file. Raise ``OSError``, and ``FileFault`` if it is not the one that was listed."""
        self._fd, status = open_regular_status(source.path)
        self._digest = hashlib.blake2b(digest_size=16)
        self._source, self._ended = source, False
        self.position = 0
        if not self._is_as_listed(status):
            self.close()
            raise FileFault("has changed since the pack began")

    def check_unchanged(self) -> None:
        """Raise ``FileFault`` if the file changed after it was opened: what was read may be a part of each."""
        if not self._is_as_listed(os.fstat(self._fd)):
            raise FileFault("has changed while it was read")

    def _is_as_listed(self, status: os.stat_result) -> bool:
        return status.st_size == self._source.size and self._source.modified in (0, status.st_mtime_ns)

    def readable(self) -> bool:
        return True

    def read(self, size: int = BLOCK) -> bytes:
        if self._ended:
            return b""
        left = self._source.size - self.position
        # A byte more than there should be: to get less shows the end without another read, each of which lets other
        # threads take Python's lock. Not more than that, because memory is taken for all that is asked for.
        data = os.read(self._fd, min(size, left + 1) if left >= 0 else size)
        self._ended = not data or len(data) == left < size
        self._digest.update(data)
        self.position += len(data)
        return data

    def digest(self) -> bytes:
        return self._digest.digest()

    def close(self) -> None:
        if not self.closed:
            os.close(self._fd)
        super().close()


def blocks(path: str, raw: RawFile) -> Iterator[bytes]:
    """Yield the content of a file, decompressed where its name says so. Raise ``OSError`` or ``FileFault``."""
    suffix = suffix_of(path)
    if suffix == ".zst":
        yield from _zstd_blocks(raw)
        return
    file = cast(BinaryIO, gzip.GzipFile(fileobj=cast(BinaryIO, raw)) if suffix == ".gz" else raw)
    try:
        while block := file.read(BLOCK):
            yield block
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FileFault(f"is damaged or truncated ({error})") from None


def _zstd_blocks(raw: RawFile) -> Iterator[bytes]:
    """Yield the content of all frames; unlike its stream reader, this notices a frame that is cut off."""
    import zstandard

    decompressor = zstandard.ZstdDecompressor()
    frame: Any = None
    rest = b""
    try:
        while rest or (rest := raw.read(8 * _ZSTD_PIECE)):
            piece, rest = rest[:_ZSTD_PIECE], rest[_ZSTD_PIECE:]
            frame = frame or decompressor.decompressobj()
            if block := frame.decompress(piece):
                yield block
            if frame.eof:
                frame, rest = None, frame.unused_data + rest
    except zstandard.ZstdError as error:
        raise FileFault(f"is damaged ({error})") from None
    if frame is not None:
        raise FileFault("is truncated")
