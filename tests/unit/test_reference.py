"""docs/reference/ is what the code says, and says something about every setting, metric, command and key."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from profiles.spec import known_keys
from scripts.reference import FOLDER, pages

PAGES = pages()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_as_the_code_is(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == PAGES[name], "run: make reference"


def test_no_page_is_left_over() -> None:
    assert {path.name for path in FOLDER.iterdir()} == PAGES.keys()


def rows(page: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the section and the cells of each row of the tables."""
    section = ""
    for line in PAGES[page].splitlines():
        if line.startswith("#"):
            section = line.strip("# `[]")
        elif line.startswith("| `") or line.startswith("|  |"):
            yield section, [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


@pytest.mark.parametrize(("page", "column"), [("spec.md", 5), ("metrics.md", 5), ("commands.md", 1), ("keys.md", 2)])
def test_everything_has_a_meaning(page: str, column: int) -> None:
    assert [cells[0] for _, cells in rows(page) if not cells[column]] == []


def test_every_setting_is_listed() -> None:
    assert sorted(f"{table}.{cells[0].strip('`')}" for table, cells in rows("spec.md")) == sorted(known_keys())
