"""``mla-tui completion``: prints a script with which a shell completes commands, options, runs and settings."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from profiles.names import slug
from tui.cli.command_parser import Subparsers, add_command

SHELLS = ("bash", "zsh", "fish")
# What completes an argument, by its name in the help: words that this command prints.
_WORDS = {"RUN": "runs", "CKPT": "runs", "K=V": "settings", "KEY=VALUE": "settings", "PROFILE": "profiles"}
_FILES = ("OUT", "FILE", "LOGDIR", "PATH")


def register(subparsers: Subparsers) -> None:
    help = "print the script that completes commands in a shell"
    parser = add_command(subparsers, "completion", help, 'eval "$(mla-tui completion bash)"')
    help = "a shell, or the words that its script asks for"
    parser.add_argument("what", choices=(*SHELLS, *sorted(set(_WORDS.values()))), help=help)
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Print the script of a shell, or words, one a line. Raise ``UserError``."""
    print(_script(args.what) if args.what in SHELLS else "\n".join(_words(args.what)))
    return 0


def _script(shell: str) -> str:
    import shtab

    from tui.cli.main import parser_of

    parser = parser_of(())
    for action in _actions(parser):
        name = action.metavar if isinstance(action.metavar, str) else ""
        if name in _WORDS:
            action.complete = shtab.cmd(f"mla-tui completion {_WORDS[name]}")  # type: ignore[attr-defined]
        elif name in _FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    return str(shtab.complete(parser, shell))


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the arguments of a parser and of all below it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _actions(below)
        else:
            yield action


def _words(kind: str) -> list[str]:
    if kind == "runs":
        from engine.runs.store import RunStore

        summaries = RunStore().summaries()
        words = [name if (name := run.name) and _is_plain(name) else run.id for run in summaries if _is_plain(run.id)]
        return [*dict.fromkeys(words), *["latest"] * bool(summaries)]
    if kind == "settings":
        from profiles.spec import known_keys

        return [f"{key}=" for key in known_keys()]
    from profiles.registry import names

    return [name for name in names() if _is_plain(name)]


def _is_plain(name: str) -> bool:
    """Return whether a shell takes ``name`` as one word. It splits the words that it completes, and executes $(…)."""
    return slug(name) == name
