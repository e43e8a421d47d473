"""Checks that the documents name files and commands that exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tui.cli.main import COMMANDS, parser_of

ROOT = Path(__file__).parents[2]
LOG = ROOT / "docs" / "log.md"  # dated entries keep the names of their day
DOCUMENTS = [path for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")) if path != LOG]
PACKAGES = "tests|engine|tui|model|data|profiles|scripts|docs"


def named_files(path: Path) -> Iterator[Path]:
    """The files of the repository in backticks, and the targets of links."""
    text = path.read_text()
    for name in re.findall(rf"`((?:{PACKAGES})/[\w./-]+)", text):
        if "NAME" not in name and not name.startswith("data/shards"):
            yield ROOT / name
    for target in re.findall(r"\]\(([\w./-]+)\)", text):
        yield path.parent / target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_that_is_named_exists(path: Path) -> None:
    assert [str(named) for named in named_files(path) if not named.exists()] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_that_is_named_exists(path: Path) -> None:
    named = set(re.findall(r"(?:`|^    )mla-tui ([a-z]+)", path.read_text(), re.MULTILINE))
    assert named <= set(COMMANDS)


def command_lines(path: Path) -> Iterator[str]:
    """Yield the commands of the indented and fenced blocks, without redirections and remarks.

    ``…`` and ``·`` stand for more than can be typed.
    """
    text = path.read_text().replace("\\\n", " ")
    for line in re.findall(r"^ {4}(?:\.venv/bin/)?mla-tui( .*|$)", text, re.MULTILINE):
        command = re.split(r"   +|  #|  [a-z]| [>|] ", line)[0].strip()
        if not set("…·|─") & set(command):
            yield command


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_line_is_understood(path: Path) -> None:
    for command in command_lines(path):
        words = [word for word in shlex.split(command) if word not in ("--help", "--version")]
        try:
            parser_of(words).parse_args(words)
        except SystemExit:
            pytest.fail(f"{path.name}: mla-tui {command}")
