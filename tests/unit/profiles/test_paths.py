"""Paths that a user gives, and the user's directories."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from profiles.errors import UserError
from profiles.paths import expand, user_dir


def test_paths_become_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert expand("~/a", "x") == expand("a", "x") == tmp_path / "a"


@pytest.mark.parametrize("text", ["~no-such-user/a", "~"])
def test_a_home_that_is_not_known_is_named(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)  # as in a container that has no entry for its user
    with pytest.raises(UserError, match=f"^train.out: {text}: there is no home directory for ~; set HOME"):
        expand(text, "train.out")


def test_the_environment_names_a_directory_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", "")
    assert user_dir("XDG_CONFIG_HOME", "~/.config") == tmp_path / ".config"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "here"))
    assert user_dir("XDG_CONFIG_HOME", "~/.config") == tmp_path / "here"
