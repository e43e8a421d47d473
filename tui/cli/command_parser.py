"""Adds the parser of a command: its name, its help and an example."""

from __future__ import annotations

import argparse
from typing import TypeAlias

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


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
