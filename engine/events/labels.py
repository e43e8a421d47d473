"""Reads and changes what a user says of a run: its tags, its note and its shown name, in ``labels.json``.

They are not records of the log, because the log is written by the run's own processes: labels also change where none
is alive, and on a copy of the directory. A change takes the lock of the file, so two at once lose nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from engine.host.process import Lock
from engine.host.struct_json import read_intact, write_struct
from profiles.errors import SpecError, UserError
from profiles.names import check_name
from profiles.printable import brief

FILE = "labels.json"
MOST_TAGS = 20
LONGEST_TAG = 40  # characters
LONGEST_NOTE = 500
_LOCK_TIMEOUT = 5.0  # seconds; a change takes milliseconds


class Labels(Struct, frozen=True, omit_defaults=True):
    """``name`` is shown instead of the one given at the launch, which stays that of the checkpoint folder."""

    tags: tuple[str, ...] = ()
    note: str | None = None
    name: str | None = None


def read_labels(folder: Path) -> Labels:
    """Return the labels of the run in ``folder``, without those that no user can have written here."""
    found = read_intact(folder / FILE, Labels)
    if found is None:
        return Labels()
    tags = tuple(dict.fromkeys(tag for tag in found.tags if _is_tag(tag)))[:MOST_TAGS]
    note = found.note if found.note and _is_note(found.note) else None
    try:
        name = check_name("run", found.name) if found.name else None
    except UserError:
        name = None
    return Labels(tags, note, name)


def change_tags(folder: Path, add: Sequence[str] = (), remove: Sequence[str] = ()) -> Labels:
    """Add tags, behind those that the run has, and remove others. Raise ``UserError``; then nothing has changed."""
    for tag in (*add, *remove):
        check_tag(tag)

    def changed(labels: Labels) -> Labels:
        if missing := next((tag for tag in remove if tag not in labels.tags), None):
            has = ", ".join(labels.tags) or "none"
            raise UserError(f"tag {missing}: the run does not have it; its tags: {has}")
        tags = tuple(tag for tag in dict.fromkeys((*labels.tags, *add)) if tag not in remove)
        if len(tags) > MOST_TAGS:
            raise UserError(f"tag: {len(tags)} tags are more than the {MOST_TAGS} that a run can have; remove some")
        return replace(labels, tags=tags)

    return _change(folder, changed)


def change_note(folder: Path, note: str) -> Labels:
    """Replace the note; an empty one removes it. Raise ``UserError``."""
    if note and not _is_note(note):
        raise SpecError(f"note {brief(note)}: write up to {LONGEST_NOTE} printable characters on one line")
    return _change(folder, lambda labels: replace(labels, note=note or None))


def change_name(folder: Path, name: str) -> Labels:
    """Replace the shown name; an empty one restores that of the launch. Raise ``UserError``."""
    if name:
        check_name("run", name)
    return _change(folder, lambda labels: replace(labels, name=name or None))


def check_tag(tag: str) -> str:
    """Return ``tag``. Raise ``SpecError`` unless it is one printable word."""
    if not _is_tag(tag):
        raise SpecError(
            f"tag {brief(tag)}: use one word of 1 to {LONGEST_TAG} printable characters without commas that does not"
            " start with a dash"
        )
    return tag


def _is_tag(tag: str) -> bool:
    return 0 < len(tag) <= LONGEST_TAG and tag.isprintable() and not set(tag) & set(" ,") and tag[0] != "-"


def _is_note(note: str) -> bool:
    return len(note) <= LONGEST_NOTE and note.isprintable() and bool(note.strip())


def _change(folder: Path, changed: Callable[[Labels], Labels]) -> Labels:
    lock = Lock(folder / "labels.lock")
    try:
        if not lock.acquire(_LOCK_TIMEOUT):
            raise UserError(f"{folder / FILE}: another process is changing it; try again")
        try:
            labels = changed(read_labels(folder))
            write_struct(folder / FILE, labels)
            return labels
        finally:
            lock.release()
    except OSError as error:
        if not folder.exists():
            raise UserError(f"run {folder.name}: was removed") from None
        raise UserError(f"{folder / FILE}: cannot be written: {error.strerror}") from None
