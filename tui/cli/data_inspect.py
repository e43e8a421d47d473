"""``mla-tui data inspect``: prints what shards hold, and what a profile would read of them."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiles.errors import UserError
from profiles.printable import one_line
from tui.cli.command_parser import Subparsers, add_command
from tui.text.format import exact

if TYPE_CHECKING:
    from profiles.spec import RunSpec


def register(subparsers: Subparsers) -> None:
    help = "print format, dtype, tokens and documents of shards, and their first text"
    parser = add_command(subparsers, "inspect", help, "mla-tui data inspect data/shards")
    parser.add_argument("path", metavar="PATH", help="a token file, a phase folder or a folder of phases")
    help = "count the sequences and epochs of this profile, and check ids against its vocabulary"
    parser.add_argument("--profile", metavar="NAME", help=help)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    from data.inspect import inspect_path
    from profiles import registry

    path, spec = Path(args.path), None
    if args.profile is not None:
        spec = registry.load(args.profile)
        entries = inspect_path(path, spec.model.config.vocab_size, spec.batch.context)
    else:
        entries = inspect_path(path)
    problems = [problem for entry in entries for problem in entry["problems"]]
    usage = _usage(path, spec, problems) if spec and os.path.isdir(path) and not problems else {}
    if args.json:
        print(json.dumps([{**entry, "usage": _of(entry, usage)} for entry in entries], indent=1))
    else:
        for entry in entries:
            print("\n".join(map(one_line, _lines(entry))))
        for folder, line in usage.items():
            print(one_line(f"{folder}: {line}"))
    for problem in dict.fromkeys(problems):
        print(one_line(f"mla-tui: {problem}"), file=sys.stderr)
    return 1 if problems else 0


def _usage(path: Path, spec: RunSpec, problems: list[str]) -> dict[str, str]:
    """Return for each phase in ``path`` a line about what a run of ``spec`` would read of it."""
    from data.phase_folders import phases_in
    from tui.text.data_usage import usage_line

    found = {}
    try:
        folders = phases_in(Path(os.path.abspath(path)))
    except UserError as error:
        problems.append(str(error))
        folders = []
    for folder in folders:
        data = replace(spec.data, root=str(folder.parent), phase=folder.name, sources={})
        try:
            found[str(folder)] = usage_line(replace(spec, data=data))
        except UserError as error:
            problems.append(str(error))
    return found


def _of(entry: dict[str, Any], usage: dict[str, str]) -> str | None:
    path = Path(os.path.abspath(entry["path"]))
    return next((line for folder, line in usage.items() if path.is_relative_to(folder)), None)


def _lines(entry: dict[str, Any]) -> list[str]:
    shown = {key: entry[key] for key in ("format", "dtype", "tokens", "bytes", "sequences", "highest_id", "sampled")}
    if entry["dtype"]:
        shown["dtype"] = f"{entry['dtype']} (from {entry['dtype_from']})"
    if entry["documents"] is not None:
        part = entry["document_tokens"] < entry["tokens"]
        sample = f" in the first {exact(entry['document_tokens'])} tokens" if part else ""
        lengths = f"longest {exact(entry['longest_document'])}, median {exact(entry['median_document'])} tokens"
        shown["documents"] = f"{exact(entry['documents'])}{sample}: {lengths}"
    if entry["bytes_per_token"] is not None:
        shown["bytes/token"] = f"{entry['bytes_per_token']:.2f}"
    if entry["peek"] is not None:
        shown["peek"] = repr(entry["peek"])
    return [entry["path"], *(f"  {key:<11} {value}" for key, value in shown.items() if value is not None)]
