"""Checks names that others chose: they become file names, words of shell lines, and text on a terminal."""

from __future__ import annotations

import re
import unicodedata

from profiles.errors import SpecError
from profiles.printable import brief

LONGEST = 100  # characters: a file name may have 255 bytes, and names get a time and a suffix
_HOST = re.compile(r"[\w\[:][\w.:%\[\]-]*")  # a name or an address; never an option
_UNSAFE = ("Cc", "Cf", "Cs", "Zl", "Zp")  # control characters, marks of writing direction, surrogates, line ends


def check_name(source: str, name: str) -> str:
    """Return ``name``, that of a profile or a run. Raise ``SpecError`` that begins with ``source``."""
    if not name or len(name) > LONGEST or not name.isprintable() or "/" in name or name[0] in ".-" or name == "latest":
        raise SpecError(
            f"{source} {brief(name)}: use a name of 1 to {LONGEST} printable characters without slashes that does not"
            " start with a dot or a dash and is not latest"
        )
    return name


def slug(name: str) -> str:
    """Return ``name`` as one word that a shell, sbatch and a file system take as it is."""
    return re.sub(r"[^\w.-]+", "-", name)


def check_text(source: str, text: str) -> str:
    """Return ``text``, a value such as a path. Raise ``SpecError`` where a terminal or a shell would obey it.

    A byte of a file name that is not UTF-8 is a surrogate in Python, U+DC80 to U+DCFF, and allowed.
    """
    if any(unicodedata.category(char) in _UNSAFE and not "\udc80" <= char <= "\udcff" for char in text):
        raise SpecError(f"{source}: {brief(text)} has a control character; write it without")
    return text


def check_hosts(source: str, hosts: str) -> str:
    """Return ``hosts``, names or addresses separated by commas. Raise ``SpecError``."""
    for host in filter(None, map(str.strip, hosts.split(","))):
        if not _HOST.fullmatch(host):
            raise SpecError(f"{source}: {brief(host)} is not the name or address of a host")
    return hosts


def check_below(source: str, path: str) -> str:
    """Return ``path``, of a folder below another. Raise ``SpecError`` where it leads out of that."""
    if path.startswith("/") or ".." in path.split("/"):
        raise SpecError(f"{source}: {brief(path)} leads out of data.root; name a folder in it")
    return path
