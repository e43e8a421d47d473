"""Checks README and docs: the files they name exist, and the program understands every command in them."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import tomllib
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from profiles.errors import UserError
from profiles.registry import BUILTIN_ORDER, parse_edit, parse_override
from tests.documented import DOCUMENTS, ROOT, Command, blocks, commands, mentions
from tui.cli.commands.sweep import cells_of
from tui.cli.main import parser_of

PACKAGES = "tests|engine|tui|model|data|profiles|scripts|docs"
TARGETS = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
PLACEHOLDERS = {"N": "1", "KEY=VALUE": "micro=4"}
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
SHORT = re.compile(r"are required|expected .*argument|nothing to compare|invalid choice: '[A-Z]+'")
"""What may be wrong with a command that is only mentioned: an argument is missing, or has its name in its place."""
each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def named_files(path: Path) -> Iterator[Path]:
    """The files of the repository in backticks, and the targets of links."""
    text = path.read_text()
    for name in re.findall(rf"`((?:{PACKAGES})/[\w./-]+)", text):
        if "NAME" not in name and not name.startswith("data/shards"):
            yield ROOT / name
    for target in re.findall(r"\]\(([\w./-]+)\)", text):
        yield path.parent / target


@each_document
def test_every_file_that_is_named_exists(path: Path) -> None:
    assert [str(named) for named in named_files(path) if not named.exists()] == []


@each_document
def test_every_command_line_is_understood(path: Path) -> None:
    problems = [f"{one.place}: {one.text}: {problem}" for one in commands(path) for problem in problems_of(one.text)]
    assert not problems, "\n".join(problems)


@each_document
def test_every_command_in_the_text_is_understood(path: Path) -> None:
    problems = [
        f"{one.place}: {one.text}: {problem}"
        for one in mentions(path)
        for problem in problems_of(one.text)
        if not SHORT.search(problem)
    ]
    assert not problems, "\n".join(problems)


def problems_of(line: str) -> Iterator[str]:
    """Yield what is wrong with the commands of a line of shell."""
    for part in re.split(r"\s(?:\||&&)\s|\$\(", line):
        words = part.split(" > ")[0].rstrip(')"') if "$(" in line else part.split(" > ")[0]
        words = re.sub(r"^ssh (?:-t )?\w+ ", "", words.strip())
        if program := re.match(r"(?:\.venv/bin/)?mla-tui(?: |$)", words):
            yield from problems_of_ours(words[program.end() :])
        elif launcher := re.match(r"(?:python3?|deepspeed|torchrun) [\w=-]*\s?train\.py ?", words):
            yield from problems_of_ours(f"train {words[launcher.end() :]}")
        elif words.startswith("make "):
            named = [word for word in words.split()[1:] if "=" not in word]
            yield from (f"make has no target {word}" for word in named if word not in TARGETS)
        elif extras := re.search(r"mla-tui\[([\w,]+)\]", words):
            yield from (f"there is no extra {name}" for name in extras[1].split(",") if name not in EXTRAS)


def problems_of_ours(text: str) -> Iterator[str]:
    """Yield what is wrong with a command of ours; ``a · b`` and ``a|b`` are several, ``…`` is more of the same."""
    first, *others = text.split(" · ")
    if not others:
        words = [PLACEHOLDERS.get(word, word).split("|") for word in shlex.split(text) if word not in ("…", "COMMAND")]
        for alternative in product(*words):
            yield from problem_of([*alternative])
        return
    above = first.split()[:-1]  # data, in: data pack · import
    for other in (first.split(), *([*above, *other.split()] for other in others)):
        yield from problem_of([*other, "--help"])  # which is answered before an argument is missed


def problem_of(words: list[str]) -> Iterator[str]:
    """Yield why the parser, or what reads the settings, refuses a command."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            args = parser_of(words).parse_args(words)
    except SystemExit as end:
        if end.code:
            yield said.getvalue().strip().splitlines()[-1]
        return
    profile = getattr(args, "profile", None)
    if profile and not profile.isupper() and profile not in BUILTIN_ORDER:
        yield f"there is no profile {profile}"
    try:
        if words[:1] == ["sweep"]:
            cells_of("cpu_demo", args.overrides, "docs")
        else:
            for text in getattr(args, "overrides", ()):
                parse_override(text)
        for text in getattr(args, "changes", ()):
            parse_edit(text)
    except UserError as error:
        yield str(error)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("mla-tui lunch", "invalid choice: 'lunch'"),
        ("mla-tui launch --nmae a", "unrecognized arguments: --nmae"),
        ("mla-tui launch -s stesp=3", "unknown key"),
        ("mla-tui launch -p cpu_demmo", "no profile cpu_demmo"),
        ("mla-tui init · tun -p PROFILE", "invalid choice: 'tun'"),
        ("mla-tui completion bash|zhs", "invalid choice: 'zhs'"),
        ("mla-tui data pack · improt", "invalid choice: 'improt'"),
        ("mla-tui sweep -p cpu_demo -s optim.lr=a,b", "optim.lr"),
        ("mla-tui set RUN mikro=4", "mikro"),
        ("cat x | mla-tui data pack - --stdn txt", "unrecognized arguments: --stdn"),
        ("ssh -t box mla-tui atach night", "invalid choice: 'atach'"),
        ('eval "$(mla-tui completion bsh)"', "invalid choice: 'bsh'"),
        ("deepspeed --num_gpus=1 train.py --bakend deepspeed", "unrecognized arguments: --bakend"),
        ("make tset TESTS=tests/unit", "no target tset"),
        ("pip install '.[ggf]' 'mla-tui[ggf]'", "no extra ggf"),
    ],
)
def test_a_mistake_is_found(line: str, problem: str) -> None:
    assert problem in "\n".join(problems_of(line))


def test_blocks_are_found_where_they_are(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "Text.\n\n    mla-tui ls      a remark\n\n```toml\nmla-tui = 1\n```\n\n<!-- run -->\n\n```sh\n"
        "mla-tui launch \\\n  --name a # b\nmla-tui ls\n```\n\n    mla-tui ── run\n\n    more\n"
    )
    found = [(block.runs, [(one.line, one.text) for one in block.commands()]) for block in blocks(page)]
    assert found == [
        (False, [(3, "mla-tui ls")]),
        (True, [(12, "mla-tui launch --name a"), (14, "mla-tui ls")]),
        (False, []),
    ]


def test_the_documents_have_commands() -> None:
    ours: list[Command] = [one for path in DOCUMENTS for one in commands(path) if "mla-tui" in one.text]
    assert len(ours) > 60
