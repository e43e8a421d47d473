"""Lists the files of a pack in an order that depends on their names alone."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from data.pack.request import STDIN
from profiles.errors import UserError
from profiles.paths import is_folder
from profiles.reader import check_regular


class Source(NamedTuple):
    """One file. ``given`` is the number of the argument that named it; ``fault`` says why it cannot be read.

    ``name`` is what a user calls it, where that is not its path.
    """

    path: str
    given: int
    size: int = 0
    modified: int = 0  # nanoseconds
    fault: str = ""
    name: str = ""

    @property
    def shown(self) -> str:
        return self.name or self.path


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a pack, in a file with one JSON array a line; ``digest`` changes when a file does."""

    path: Path
    files: int
    bytes: int
    digest: str

    def __iter__(self) -> Iterator[Source]:
        with self.path.open() as lines:
            for line in lines:
                yield Source(*json.loads(line))


def check_sources(given: tuple[str, ...]) -> None:
    """Raise ``UserError`` for an argument that names nothing."""
    for argument in given:
        if not (argument == STDIN or os.path.lexists(argument) or next(glob.iglob(argument, recursive=True), None)):
            raise UserError(f"{argument}: does not exist: name a file, a folder, a glob or - for standard input")


def list_sources(
    given: tuple[str, ...],
    exclude: Path,
    spooled: Path,
    path: Path,
    check: Callable[[str], object],
    report: Callable[[int], object],
) -> Listing:
    """Write the files that ``given`` names to ``path``, and return them.

    Files are in the order of the arguments, those of a folder sorted by name, its own before those of its subfolders.
    Hidden files and folders are left out, and ``exclude``, the folder of the packed data. ``-`` is the file
    ``spooled``. ``check`` receives the path of each file, ``report`` the number of files found so far. Raise
    ``UserError`` for an argument that names nothing, and ``OSError`` where ``path`` cannot be written.
    """
    files = size = 0
    digest = hashlib.blake2b(digest_size=16)
    with path.open("w") as lines:
        for number, argument in enumerate(given):
            found = 0
            for source in _files_of(argument, number, exclude, spooled):
                check(source.path)
                line = _line(source)
                lines.write(line)
                digest.update(line.encode())
                found, size = found + 1, size + source.size
                if (files + found) % 1000 == 0:
                    report(files + found)
            if not found and Path(os.path.abspath(argument)) == exclude:
                raise UserError(f"{argument}: is --out, whose files are not packed: choose another --out")
            if not found:
                raise UserError(f"{argument}: holds no file: name a file, a folder, a glob or - for standard input")
            files += found
    return Listing(path, files, size, digest.hexdigest())


def _files_of(argument: str, number: int, exclude: Path, spooled: Path) -> Iterable[Source]:
    if argument == STDIN:
        # Not its time: the same input, spooled again, is the same source.
        return [Source(str(spooled), number, spooled.stat().st_size, 0, name=STDIN)]
    if os.path.isdir(argument):
        return _below(argument, number, exclude)
    if os.path.lexists(argument):
        return [_source(argument, number)]
    return _matching(argument, number, exclude)


def _matching(pattern: str, number: int, exclude: Path) -> Iterator[Source]:
    for name in sorted(glob.iglob(pattern, recursive=True)):
        if not os.path.isdir(name) and exclude not in Path(os.path.abspath(name)).parents:
            yield _source(name, number)


def _below(folder: str, number: int, exclude: Path) -> Iterator[Source]:
    """Yield the files below a folder. A link to a file is followed, one to a folder is not: it may lead back."""
    folders = [folder]
    while folders:
        folder = folders.pop()
        if Path(os.path.abspath(folder)) == exclude:
            continue
        try:
            with os.scandir(folder) as entries:
                visible = sorted((entry for entry in entries if entry.name[0] != "."), key=lambda entry: entry.name)
        except OSError as error:
            yield Source(folder, number, fault=error.strerror or "cannot be listed")
            continue
        for entry in visible:
            if not is_folder(entry):
                yield _source(entry, number)
        folders += [entry.path for entry in reversed(visible) if entry.is_dir(follow_symlinks=False)]


def _source(file: str | os.DirEntry[str], number: int) -> Source:
    path = os.fspath(file)
    try:
        status = os.stat(path) if isinstance(file, str) else file.stat()
        check_regular(path, status.st_mode)
    except OSError as error:
        return Source(path, number, fault=error.strerror or "cannot be read")
    return Source(path, number, status.st_size, status.st_mtime_ns)


def _line(source: Source) -> str:
    """Return a file as a line of JSON. ``json.dumps`` takes four times as long for a list as for the strings in it."""
    path, given, size, modified, fault, name = source
    return f"[{json.dumps(path)}, {given}, {size}, {modified}, {json.dumps(fault)}, {json.dumps(name)}]\n"
