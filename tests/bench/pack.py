"""Packs text end to end, against the same pipeline with tokenizers, and next to the floor of its parts.

``python -m tests.bench pack``: the standard library, and linux-doc where Debian's package of it is installed. The floor
is what one core needs to read, hash, encode and write the same bytes, each part alone and in one go.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

T = TypeVar("T")
_VOCABULARY = 32768
_REPEATS = 3
_REFERENCE_BYTES = 256 << 20  # of text that both encoders pack; it takes tokenizers about 70 CPU-s


def bench_pack(home: Path) -> None:
    from data.pack.vocabulary import TOKENIZER_JSON

    library = _library(home / "library")
    _pack(home / "trained", library, train_tokenizer=_VOCABULARY)
    tokenizer = home / "trained" / "p" / TOKENIZER_JSON
    corpora = {"standard library": library}
    if found := sorted(Path("/usr/share/doc").glob("linux-doc-*/")):
        corpora["linux-doc"] = _unpacked(found[0], home / "linux-doc")
    for name, folder in corpora.items():
        print(f"{name}: {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        _floor(folder, tokenizer, home / "floor")
        for workers in (1, os.cpu_count() or 1):
            packs = [_pack(home / "out", folder, tokenizer=tokenizer, workers=workers) for _ in range(_REPEATS)]
            print(f"  data pack, {workers} workers: {max(packs)}, best of {_REPEATS}")
        part = _part(folder, home / f"part of {name}")
        options = {"tokenizer": tokenizer, "workers": os.cpu_count()}
        fast, slow = (_pack(home / "out", part, encoder=name, **options) for name in ("fastokens", "tokenizers"))
        print(f"  a part of it: fastokens {fast}, tokenizers {slow}:")
        ratios = fast.per_second / slow.per_second, fast.per_cpu_second / slow.per_cpu_second
        print("  {:.1f} times as fast, {:.1f} times by CPU time, with loading the tokenizer".format(*ratios))


class Speed(NamedTuple):
    """Millions of tokens a second, a second of CPU time (which other programs slow down less), and in all."""

    per_second: float
    per_cpu_second: float
    tokens: float

    def __str__(self) -> str:
        return f"{self.per_second:.2f} M tokens/s, {self.per_cpu_second:.2f} M/CPU-s ({self.tokens:.1f} M)"


def _pack(out: Path, source: Path, **options: object) -> Speed:
    """Pack a folder, with loading the tokenizer."""
    from data.pack.packing import pack
    from data.pack.report import Silent
    from data.pack.request import Request

    shutil.rmtree(out, ignore_errors=True)
    started, cpu = time.perf_counter(), time.process_time()
    packed = pack(Request((str(source),), out, "p", **options), Silent())  # type: ignore[arg-type]
    tokens = packed.progress.tokens / 1e6
    return Speed(tokens / (time.perf_counter() - started), tokens / (time.process_time() - cpu), tokens)


def _floor(folder: Path, tokenizer: Path, out: Path) -> None:
    """Print the seconds of one core for each part."""
    import fastokens

    paths = list(_text_files(folder))
    raw = _timed("read", lambda: [path.read_bytes() for path in paths])
    _timed("hash (BLAKE2b)", lambda: [hashlib.blake2b(text, digest_size=16).digest() for text in raw])
    texts = _timed("decode", lambda: [text.decode() for text in raw])
    encoder = fastokens.Tokenizer.from_file(str(tokenizer))
    encoder.encode_batch_flat(texts)
    ids = _timed("encode", lambda: encoder.encode_batch_flat(texts, split_special_tokens=True)[0])
    _timed("write", lambda: out.write_bytes(np.frombuffer(ids, "<u4").astype("<u2").tobytes()))
    print(f"  floor: {sum(map(len, raw)) / 1e6:.1f} MB, {len(paths)} files, {len(ids) / 4e6:.1f} M tokens")


def _timed(name: str, work: Callable[[], T]) -> T:
    started = time.process_time()
    result = work()
    print(f"  {name:<16} {time.process_time() - started:.3f} CPU-s")
    return result


def _text_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            try:
                if "\0" not in path.read_text("utf-8"):
                    yield path
            except UnicodeDecodeError:
                continue


def _library(folder: Path) -> Path:
    """Copy the sources of the standard library."""
    source = Path(sysconfig.get_path("stdlib"))
    for path in sorted(source.rglob("*.py")):
        if not {"site-packages", "dist-packages"} & set(path.parts):
            place = folder / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
    return folder


def _unpacked(source: Path, folder: Path) -> Path:
    """Copy the text of a documentation package, decompressed."""
    for path in sorted(source.rglob("*")):
        if path.suffix in (".txt", ".rst", ".gz", ".html") and path.is_file():
            place = folder / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.with_suffix("" if path.suffix == ".gz" else path.suffix).write_bytes(
                gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            )
    return folder


def _part(source: Path, folder: Path) -> Path:
    """Copy the first files of a folder, up to ``_REFERENCE_BYTES``."""
    size = 0
    for path in _text_files(source):
        if size < _REFERENCE_BYTES:
            size += path.stat().st_size
            place = folder / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
    return folder
