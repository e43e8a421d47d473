"""Adds the parser of a command: its name, its help and an example."""

from __future__ import annotations

import argparse
from typing import Any, TypeAlias

from profiles.errors import SpecError
from profiles.printable import brief

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

# An empty text is something to say here, or gets a better answer: the newest run, the form of a setting.
_MAY_BE_EMPTY = {"changes", "filter", "grid", "overrides", "prompt", "run", "runs", "tags", "text", "text_key", "val"}


class CommandParser(argparse.ArgumentParser):
    """Refuses an option that is given twice, and the empty argument that a shell makes of an unset variable.

    Of two values argparse drops the first without a word. The empty one would be the current directory as a path, and
    as a name the one that is chosen where none is given.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.given: dict[str, tuple[str, Any]] = {}  # option and value, by destination
        for name, action in ((None, _StoreOnce), ("store", _StoreOnce), ("store_const", _StoreConstOnce)):
            self.register("action", name, action)

    def take(self, action: argparse.Action, option: str | None, value: Any) -> None:
        """Take in that ``option`` gives ``value``. Raises ``SpecError`` where another value was given before."""
        if option is None:
            return
        if action.dest in self.given and self.given[action.dest][1] != value:
            earlier, before = self.given[action.dest]
            words = f"{earlier} {before}" if earlier != option else before
            raise SpecError(f"{option}: {brief(value)} contradicts {brief(words)}, given before; give one of them")
        self.given[action.dest] = option, value

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """As that of argparse. Raises ``SpecError``."""
        self.given.clear()
        namespace, unrecognized = super().parse_known_args(args, namespace)
        for action in self._actions:
            given = getattr(namespace, action.dest, None)
            if action.dest not in _MAY_BE_EMPTY and (given == "" or (isinstance(given, list) and "" in given)):
                if action.option_strings:
                    option = max(action.option_strings, key=len)
                    raise SpecError(f"{option}: is empty; leave the option out, or name something")
                raise SpecError(f"{action.metavar or action.dest}: is empty; name something")
        return namespace, unrecognized


def add_command(subparsers: Subparsers, name: str, help: str, example: str) -> argparse.ArgumentParser:
    parser = subparsers.add_parser(
        name,
        help=help,
        description=f"{help[0].upper()}{help[1:]}.",
        epilog=f"example: {example}",
    )
    parser.set_defaults(opens_app=False)
    return parser


def add_subcommands(parser: argparse.ArgumentParser, required: bool = False) -> Subparsers:
    return parser.add_subparsers(title="commands", metavar="COMMAND", required=required)


class _StoreOnce(argparse._StoreAction):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        parser.take(self, option_string, values)
        super().__call__(parser, namespace, values, option_string)


class _StoreConstOnce(argparse._StoreConstAction):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        parser.take(self, option_string, self.const)
        super().__call__(parser, namespace, values, option_string)
