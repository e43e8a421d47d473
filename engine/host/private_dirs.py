"""Creates and checks private directories: owned by this user, not symbolic links, mode 0700."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

from profiles.errors import UserError

REMEDY = "set MLA_TUI_HOME to a directory of your own"


def ownership_problem(path: Path, status: os.stat_result | None = None) -> str | None:
    """Return why ``path`` must not hold our state, or None if it may or does not exist.

    Its parents may be symbolic links or belong to other users: only who controls them could replace the directory
    itself. ``status`` is the result of ``lstat``, if the caller has it.
    """
    try:
        status = status or os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISLNK(status.st_mode):
        return f"{path}: is a symbolic link, and state is kept only in real directories; {REMEDY}"
    if status.st_uid != os.geteuid():
        return f"{path}: belongs to {user_name(status.st_uid)}, not to you; {REMEDY}"
    return None


def check_private_dir(*paths: Path) -> None:
    """Raise ``UserError`` if one of ``paths`` must not hold our state."""
    for path in paths:
        if problem := ownership_problem(path):
            raise UserError(problem)


def make_private_dir(path: Path, parents: bool = False) -> None:
    """Create ``path`` with mode 0700, or remove the permissions of other users from an existing directory.

    Raise ``UserError`` if it is a symbolic link, belongs to another user or keeps its permissions, ``OSError`` if it
    cannot be created.
    """
    check_private_dir(path)
    path.mkdir(mode=0o700, parents=parents, exist_ok=True)
    # Checked and changed through one descriptor, so that a rename in between cannot swap the directory.
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if problem := ownership_problem(path, status):
            raise UserError(problem)
        if stat.S_IMODE(status.st_mode) & 0o077:
            os.fchmod(fd, 0o700)
            if stat.S_IMODE(os.fstat(fd).st_mode) & 0o077:  # a file system without permissions ignores chmod
                raise UserError(f"{path}: is open to other users and its permissions cannot be changed; {REMEDY}")
    except PermissionError:
        raise UserError(f"{path}: is open to other users; chmod 700 it, or {REMEDY}") from None
    finally:
        os.close(fd)


def private_opener(path: str, flags: int) -> int:
    """Open files with mode 0600; pass it as ``open(…, opener=private_opener)``."""
    return os.open(path, flags, 0o600)


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
