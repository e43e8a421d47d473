"""Directories that are ours alone: what a run writes is nobody else's to read, nor anybody's to lay in our way."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

from profiles.errors import UserError

WAY_OUT = "set MLA_TUI_HOME to a directory of your own"


def ownership_problem(path: Path, found: os.stat_result | None = None) -> str | None:
    """Why ``path`` may not hold our state; None where it may, or where there is nothing.

    Its parents may be links and anybody's: only who controls them could exchange the directory itself. ``found`` is
    what ``lstat`` said of it, where that is known already.
    """
    try:
        found = found or os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISLNK(found.st_mode):
        return f"{path}: is a symbolic link, and state is kept only in directories themselves; {WAY_OUT}"
    if found.st_uid != os.geteuid():
        return f"{path}: belongs to {user_name(found.st_uid)}, not to you; {WAY_OUT}"
    return None


def check_private_dir(*paths: Path) -> None:
    """Raises ``UserError`` where one of ``paths`` may not hold our state."""
    for path in paths:
        if wrong := ownership_problem(path):
            raise UserError(wrong)


def make_private_dir(path: Path, parents: bool = False) -> None:
    """Have ``path`` as a directory of our own that nobody else can enter: made, or tightened where it was open.

    Raises ``UserError`` where it is a link, another user's or cannot be tightened, ``OSError`` where it cannot be made.
    """
    check_private_dir(path)
    path.mkdir(mode=0o700, parents=parents, exist_ok=True)
    # By descriptor: what is looked at is what is changed, whoever renames things meanwhile.
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if wrong := ownership_problem(path, found):
            raise UserError(wrong)
        if stat.S_IMODE(found.st_mode) & 0o077:
            os.fchmod(fd, 0o700)
            if stat.S_IMODE(os.fstat(fd).st_mode) & 0o077:  # a file system without permissions says yes and does no
                raise UserError(f"{path}: is open to other users and cannot be closed to them; {WAY_OUT}")
    except PermissionError:
        raise UserError(f"{path}: is open to other users; chmod 700 it, or {WAY_OUT}") from None
    finally:
        os.close(fd)


def private_opener(path: str, flags: int) -> int:
    """An opener for ``open``: files that only their owner may read."""
    return os.open(path, flags, 0o600)


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
